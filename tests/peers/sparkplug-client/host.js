// A reader and commander made with the payloads of npm's sparkplug-client, which has no host, for Shopfloor's tests.
//
// node host.js '{"broker": 1883, "control": 4841, "hostId": "scada"}' says STATE and reads the group bremen. The control
// port takes {"heard": 0} (everything heard from that number on), {"topic": "spBv1.0/bremen/NCMD/edge", "metrics": […]}
// (a command) and {"online": false}. Numbers of 64 bits are {"long": "text"}.
"use strict";
const Long = require("long");
const mqtt = require("mqtt");
const { decodePayload, encodePayload } = require("sparkplug-payload").get("spBv1.0");
const { serve } = require("./control.js");

const options = JSON.parse(process.argv[2]);
const heard = [];
const names = new Map();
const stateTopic = `spBv1.0/STATE/${options.hostId}`;
const state = (online, timestamp) => JSON.stringify({ online, timestamp });
const began = Date.now();

const client = mqtt.connect(`mqtt://127.0.0.1:${options.broker}`, {
  keepalive: 5,
  will: { topic: stateTopic, payload: state(false, began), qos: 1, retain: true },
});

function plain(value) {
  if (Long.isLong(value)) return { long: value.toString() };
  return value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value;
}

client.on("connect", () => {
  client.subscribe("spBv1.0/bremen/#", { qos: 0 }, () => client.publish(stateTopic, state(true, began), { qos: 1, retain: true }));
});
client.on("message", (topic, message) => {
  const [, group, kind, node, device] = topic.split("/");
  if (kind.endsWith("CMD")) return;
  const where = [group, node, device].filter(Boolean).join("/");
  if (!kind.endsWith("DATA")) heard.push({ event: kind, where });
  for (const metric of decodePayload(message).metrics || []) {
    const alias = metric.alias === undefined ? "" : String(metric.alias);
    if (kind.endsWith("BIRTH") && alias) names.set(alias, metric.name);
    const properties = Object.fromEntries(Object.entries(metric.properties || {}).map(([key, one]) => [key, plain(one.value)]));
    heard.push({
      event: kind.endsWith("DATA") ? "data" : "born", where, name: metric.name || names.get(alias), value: plain(metric.value),
      timestamp: plain(metric.timestamp), historical: metric.isHistorical === true, properties,
    });
  }
});

serve(options.control, {
  topic: ({ topic, metrics }) => {
    client.publish(topic, Buffer.from(encodePayload({ timestamp: Date.now(), metrics })));
  },
  online: ({ online }) => {
    client.publish(stateTopic, state(online, Date.now()), { qos: 1, retain: true });
  },
  heard: (request) => ({ value: heard.slice(request.heard) }),
});
