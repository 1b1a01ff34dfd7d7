package peer;

import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.TimestampProto;
import com.google.protobuf.util.JsonFormat;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.util.Base64;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.io.DecoderFactory;

/**
 * What Java reads of records in Confluent's wire format: peer.Reader REGISTRY, then lines of base64, each answered by a
 * line of JSON. It takes the schema out of the registry and nothing from whoever wrote the record.
 */
public final class Reader {
    private static final HttpClient CLIENT = HttpClient.newHttpClient();

    private Reader() {}

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            ByteBuffer record = ByteBuffer.wrap(Base64.getDecoder().decode(line));
            if (record.get() != 0) {
                throw new IllegalArgumentException("no record in Confluent's wire format");
            }
            String answer = get(arguments[0] + "/schemas/ids/" + record.getInt() + "?format=serialized");
            com.google.gson.JsonObject said = com.google.gson.JsonParser.parseString(answer).getAsJsonObject();
            String schema = said.get("schema").getAsString();
            boolean avro = !said.has("schemaType") || said.get("schemaType").getAsString().equals("AVRO");
            System.out.println(avro ? avro(schema, record) : protobuf(schema, record));
        }
    }

    private static String get(String url) throws Exception {
        return CLIENT.send(HttpRequest.newBuilder(URI.create(url)).build(), HttpResponse.BodyHandlers.ofString()).body();
    }

    private static String avro(String schema, ByteBuffer record) throws Exception {
        return new GenericDatumReader<Object>(new Schema.Parser().parse(schema))
                .read(null, DecoderFactory.get().binaryDecoder(rest(record), null))
                .toString();
    }

    private static String protobuf(String schema, ByteBuffer record) throws Exception {
        if (record.get() != 0) {
            throw new IllegalArgumentException("not the first message of its file");
        }
        FileDescriptorProto file = FileDescriptorProto.parseFrom(Base64.getDecoder().decode(schema));
        Descriptor first = FileDescriptor.buildFrom(file, new FileDescriptor[] {TimestampProto.getDescriptor()})
                .getMessageTypes()
                .get(0);
        return JsonFormat.printer()
                .preservingProtoFieldNames()
                .omittingInsignificantWhitespace()
                .print(DynamicMessage.parseFrom(first, rest(record)));
    }

    private static byte[] rest(ByteBuffer record) {
        byte[] found = new byte[record.remaining()];
        record.get(found);
        return found;
    }
}
