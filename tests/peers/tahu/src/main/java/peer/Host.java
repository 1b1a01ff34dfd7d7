package peer;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Date;
import java.util.List;
import java.util.Map;
import org.eclipse.tahu.host.HostApplication;
import org.eclipse.tahu.host.api.MultiHostApplicationEventHandler;
import org.eclipse.tahu.message.SparkplugBPayloadDecoder;
import org.eclipse.tahu.message.model.DeviceDescriptor;
import org.eclipse.tahu.message.model.EdgeNodeDescriptor;
import org.eclipse.tahu.message.model.Message;
import org.eclipse.tahu.message.model.Metric;
import org.eclipse.tahu.message.model.SparkplugBPayload.SparkplugBPayloadBuilder;
import org.eclipse.tahu.message.model.SparkplugDescriptor;
import org.eclipse.tahu.message.model.Topic;
import org.eclipse.tahu.model.MqttServerDefinition;
import org.eclipse.tahu.mqtt.MqttClientId;
import org.eclipse.tahu.mqtt.MqttServerName;
import org.eclipse.tahu.mqtt.MqttServerUrl;

/**
 * A Sparkplug host application made with Eclipse Tahu, for Shopfloor's tests:
 *
 * <p>peer.Host '{"broker": 1883, "control": 4841, "hostId": "scada"}'. The control port takes {"heard": 0} (everything
 * heard from that number on), {"topic": "spBv1.0/g/NCMD/e1", "metrics": […]} (a command), {"online": false} (says so and
 * stays) and {"stop": true}.
 */
public final class Host implements MultiHostApplicationEventHandler {
    private final List<Map<String, Object>> heard = Collections.synchronizedList(new ArrayList<>());
    private final HostApplication application;

    private Host(JsonNode options) throws Exception {
        MqttServerDefinition server = new MqttServerDefinition(new MqttServerName("broker"), new MqttClientId("tahu-host", false),
                new MqttServerUrl("tcp://127.0.0.1:" + options.get("broker").asInt()), null, null, 5, null);
        application = new HostApplication(this, options.get("hostId").asText(), new ArrayList<>(List.of("spBv1.0/#")),
                new ArrayList<>(List.of(server)), null, new SparkplugBPayloadDecoder(), true);
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode options = Values.JSON.readTree(arguments[0]);
        Host host = new Host(options);
        host.application.start(true);
        Control.serve(options.get("control").asInt(), host::answer);
    }

    private Object answer(JsonNode request) throws Exception {
        if (request.has("topic")) {
            application.publishCommand(Topic.parseTopic(request.get("topic").asText()), new SparkplugBPayloadBuilder()
                    .setTimestamp(new Date()).addMetrics(Values.metrics(request.get("metrics"))).createPayload());
        } else if (request.has("online")) {
            application.setOnlineState(request.get("online").asBoolean());
        } else if (request.has("stop")) {
            application.shutdown();
        } else {
            synchronized (heard) {
                return Map.of("value", List.copyOf(heard.subList(request.get("heard").asInt(), heard.size())));
            }
        }
        return Map.of();
    }

    private void say(String event, SparkplugDescriptor where) {
        heard.add(Map.of("event", event, "where", where.getDescriptorString()));
    }

    private void say(String event, SparkplugDescriptor where, Metric metric) {
        Map<String, Object> said = Values.said(where.getDescriptorString(), metric);
        said.put("event", event);
        heard.add(said);
    }

    // ---- what Tahu says

    @Override
    public void onConnect(MqttServerName server) {}

    @Override
    public void onDisconnect(MqttServerName server) {}

    @Override
    public void onMessage(MqttServerName server, SparkplugDescriptor where, Message message) {}

    @Override
    public void onNodeBirthArrived(MqttServerName server, EdgeNodeDescriptor where, Message message) {
        say("NBIRTH", where);
    }

    @Override
    public void onNodeBirthComplete(MqttServerName server, EdgeNodeDescriptor where) {}

    @Override
    public void onNodeDataArrived(MqttServerName server, EdgeNodeDescriptor where, Message message) {}

    @Override
    public void onNodeDataComplete(MqttServerName server, EdgeNodeDescriptor where) {}

    @Override
    public void onNodeDeath(MqttServerName server, EdgeNodeDescriptor where, Message message) {
        say("NDEATH", where);
    }

    @Override
    public void onNodeDeathComplete(MqttServerName server, EdgeNodeDescriptor where) {}

    @Override
    public void onDeviceBirthArrived(MqttServerName server, DeviceDescriptor where, Message message) {
        say("DBIRTH", where);
    }

    @Override
    public void onDeviceBirthComplete(MqttServerName server, DeviceDescriptor where) {}

    @Override
    public void onDeviceDataArrived(MqttServerName server, DeviceDescriptor where, Message message) {}

    @Override
    public void onDeviceDataComplete(MqttServerName server, DeviceDescriptor where) {}

    @Override
    public void onDeviceDeath(MqttServerName server, DeviceDescriptor where, Message message) {
        say("DDEATH", where);
    }

    @Override
    public void onDeviceDeathComplete(MqttServerName server, DeviceDescriptor where) {}

    @Override
    public void onBirthMetric(MqttServerName server, SparkplugDescriptor where, Metric metric) {
        say("born", where, metric);
    }

    @Override
    public void onDataMetric(MqttServerName server, SparkplugDescriptor where, Metric metric) {
        say("data", where, metric);
    }

    @Override
    public void onStale(MqttServerName server, SparkplugDescriptor where, Metric metric) {
        say("stale", where, metric);
    }
}
