package peer;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** The control port: a JSON object a line, each answered by one. */
final class Control {
    /** What a peer does with a request. */
    interface Requests {
        Object answer(JsonNode request) throws Exception;
    }

    private Control() {}

    static void serve(int port, Requests requests) throws IOException {
        try (ServerSocket server = new ServerSocket(port, 10, InetAddress.getByName("127.0.0.1"))) {
            while (true) {
                Socket socket = server.accept();
                new Thread(() -> talk(socket, requests)).start();
            }
        }
    }

    private static void talk(Socket socket, Requests requests) {
        try (socket) {
            BufferedReader lines = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                Object answer;
                try {
                    answer = requests.answer(Values.JSON.readTree(line));
                } catch (Exception error) {
                    answer = Map.of("error", error.toString());
                }
                socket.getOutputStream().write((Values.JSON.writeValueAsString(answer) + "\n").getBytes(StandardCharsets.UTF_8));
            }
        } catch (IOException gone) {
            // the test has what it wanted
        }
    }
}
