package peer;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.tahu.edge.EdgeClient;
import org.eclipse.tahu.edge.api.MetricHandler;
import org.eclipse.tahu.message.SparkplugBPayloadDecoder;
import org.eclipse.tahu.message.SparkplugBPayloadEncoder;
import org.eclipse.tahu.message.model.EdgeNodeDescriptor;
import org.eclipse.tahu.message.model.MessageType;
import org.eclipse.tahu.message.model.Metric;
import org.eclipse.tahu.message.model.Metric.MetricBuilder;
import org.eclipse.tahu.message.model.MetricDataType;
import org.eclipse.tahu.message.model.SparkplugBPayload;
import org.eclipse.tahu.message.model.SparkplugBPayload.SparkplugBPayloadBuilder;
import org.eclipse.tahu.message.model.SparkplugBPayloadMap;
import org.eclipse.tahu.message.model.SparkplugBPayloadMap.SparkplugBPayloadMapBuilder;
import org.eclipse.tahu.message.model.SparkplugDescriptor;
import org.eclipse.tahu.message.model.StatePayload;
import org.eclipse.tahu.message.model.Topic;
import org.eclipse.tahu.model.MqttServerDefinition;
import org.eclipse.tahu.mqtt.ClientCallback;
import org.eclipse.tahu.mqtt.MqttClientId;
import org.eclipse.tahu.mqtt.MqttServerName;
import org.eclipse.tahu.mqtt.MqttServerUrl;

/**
 * A Sparkplug edge node made with Eclipse Tahu, for Shopfloor's tests:
 *
 * <p>peer.Edge '{"broker": 1883, "control": 4841, "node": "e1", "metrics": […], "devices": {"cnc": […]}}', with
 * "primaryHost" where it obeys one and "aliases". A metric is {"name", "type", "value"}. The control port takes
 * {"data": […], "device": "cnc"}, {"leave": "cnc"}, {"join": "cnc"}, {"stop": true}, {"ping": true}. What a host writes
 * is published as data.
 */
public final class Edge implements MetricHandler, ClientCallback {
    private static final String REBIRTH = "Node Control/Rebirth";

    private final JsonNode options;
    private final String node;
    private final EdgeClient client;
    private final Map<String, Map<String, Metric>> known = new LinkedHashMap<>();
    private final Set<String> away = ConcurrentHashMap.newKeySet();
    private final List<Map<String, Object>> commands = Collections.synchronizedList(new ArrayList<>());
    private volatile int births;
    private long bdSeq = -1;

    private Edge(JsonNode options) throws Exception {
        this.options = options;
        this.node = options.get("node").asText();
        remember("", Values.metrics(options.get("metrics")));
        for (Map.Entry<String, JsonNode> one : options.path("devices").properties()) {
            remember(one.getKey(), Values.metrics(one.getValue()));
        }
        List<String> devices = known.keySet().stream().filter(name -> !name.isEmpty()).toList();
        MqttServerDefinition server = new MqttServerDefinition(new MqttServerName("broker"), new MqttClientId("tahu-" + node, false),
                new MqttServerUrl("tcp://127.0.0.1:" + options.get("broker").asInt()), null, null, 5, getDeathTopic());
        String host = options.has("primaryHost") ? options.get("primaryHost").asText() : null;
        client = new EdgeClient(this, new EdgeNodeDescriptor("g", node), devices, host, options.path("aliases").asBoolean(),
                50L, List.of(server), this, null);
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode options = Values.JSON.readTree(arguments[0]);
        Edge edge = new Edge(options);
        new Thread(edge.client, "edge").start();
        Control.serve(options.get("control").asInt(), edge::answer);
    }

    private void remember(String device, List<Metric> metrics) {
        Map<String, Metric> mine = known.computeIfAbsent(device, name -> Collections.synchronizedMap(new LinkedHashMap<>()));
        for (Metric metric : metrics) mine.put(metric.getName(), metric);
    }

    private Object answer(JsonNode request) throws Exception {
        if (request.has("data")) {
            tell(request.path("device").asText(""), Values.metrics(request.get("data")));
        } else if (request.has("leave")) {
            away.add(request.get("leave").asText());
            client.publishDeviceDeath(request.get("leave").asText());
        } else if (request.has("join")) {
            away.remove(request.get("join").asText());
            birth(request.get("join").asText());
        } else if (request.has("stop")) {
            client.shutdown();
        } else {
            return Map.of("births", births, "commands", List.copyOf(commands), "connected", client.isConnected());
        }
        return Map.of();
    }

    private void tell(String device, List<Metric> metrics) throws Exception {
        remember(device, metrics);
        born();
        SparkplugBPayload payload = new SparkplugBPayloadBuilder().setTimestamp(new Date()).addMetrics(copies(metrics)).createPayload();
        if (device.isEmpty()) client.publishNodeData(payload);
        else client.publishDeviceData(device, payload);
    }

    /** Tahu drops data without a word until the last birth of a session is out, and the first may be answered before. */
    private void born() throws InterruptedException {
        for (int waited = 0; births > 0 && !client.isConnectedToPrimaryHost() && waited < 5_000; waited += 10) Thread.sleep(10);
    }

    private void birth(String device) throws Exception {
        client.publishDeviceBirth(device, new SparkplugBPayloadBuilder().setTimestamp(new Date())
                .addMetrics(copies(known.get(device).values())).createPayload());
    }

    /** Tahu takes the names out of what it publishes by alias, so it gets copies. */
    private static List<Metric> copies(Collection<Metric> metrics) throws Exception {
        List<Metric> found = new ArrayList<>();
        for (Metric metric : metrics) found.add(new MetricBuilder(metric).createMetric());
        return found;
    }

    // ---- what Tahu asks for

    @Override
    public Topic getDeathTopic() {
        return new Topic("spBv1.0", "g", node, MessageType.NDEATH);
    }

    @Override
    public byte[] getDeathPayloadBytes() throws Exception {
        bdSeq = (bdSeq + 1) % 256;
        return new SparkplugBPayloadEncoder().getBytes(new SparkplugBPayloadBuilder().setTimestamp(new Date())
                .addMetric(new MetricBuilder("bdSeq", MetricDataType.Int64, bdSeq).createMetric()).createPayload(), true);
    }

    @Override
    public void publishBirthSequence() {
        try {
            births++;
            SparkplugBPayloadMap own = new SparkplugBPayloadMapBuilder().setTimestamp(new Date())
                    .addMetric(new MetricBuilder("bdSeq", MetricDataType.Int64, bdSeq).createMetric())
                    .addMetrics(copies(known.get("").values())).createPayload();
            client.publishNodeBirth(own);
            for (String device : known.keySet()) if (!device.isEmpty() && !away.contains(device)) birth(device);
        } catch (Exception error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public boolean hasMetric(SparkplugDescriptor where, String name) {
        return known.get("").containsKey(name);
    }

    // ---- what the broker says

    @Override
    public void messageArrived(MqttServerName server, MqttServerUrl url, MqttClientId id, String topic, MqttMessage message) {
        try {
            String[] levels = topic.split("/");
            if (levels[1].equals("STATE")) {
                client.handleStateMessage(levels[2], Values.JSON.readValue(message.getPayload(), StatePayload.class));
            } else if (levels[2].equals("NCMD") || levels[2].equals("DCMD")) {
                obey(levels.length > 4 ? levels[4] : "", new SparkplugBPayloadDecoder().buildFromByteArray(message.getPayload(), null));
            }
        } catch (Exception error) {
            System.err.println(topic + ": " + error);
        }
    }

    private void obey(String device, SparkplugBPayload said) throws Exception {
        for (Metric metric : said.getMetrics()) {
            if (metric == null) continue; // Tahu could not read it
            commands.add(Values.said(device, metric));
            if (REBIRTH.equals(metric.getName())) client.handleRebirthRequest(true);
            else if (known.get(device).containsKey(metric.getName())) tell(device, List.of(metric));
        }
    }

    @Override
    public void connectionLost(MqttServerName server, MqttServerUrl url, MqttClientId id, Throwable cause) {}

    @Override
    public void connectComplete(boolean again, MqttServerName server, MqttServerUrl url, MqttClientId id) {}

    @Override
    public void shutdown() {}
}
