// A Sparkplug edge node made with npm's sparkplug-client, for Shopfloor's tests.
//
// node edge.js '{"broker": 1883, "control": 4841, "node": "e1", "metrics": […], "devices": {"cnc": […]}}'
//
// A metric is {"name", "type", "value"} with what the library takes beside it (properties, isHistorical …). Integers
// beyond 2^53 are texts, bytes are base64, a DataSet has "columns", "types" and "rows".
// The control port takes one JSON object a line and answers with one: {"data": […], "device": "cnc"},
// {"leave": "cnc"}, {"join": "cnc"}, {"stop": true}, {"ping": true}. What a host writes is published as data.
"use strict";
const Long = require("long");
const SparkplugClient = require("sparkplug-client");
const { serve } = require("./control.js");

const options = JSON.parse(process.argv[2]);
const known = { "": new Map(), ...Object.fromEntries(Object.keys(options.devices || {}).map((name) => [name, new Map()])) };
const away = new Set();
const told = { births: 0, commands: [], connected: false };

const REBIRTH = "Node Control/Rebirth";

function metricOf(said) {
  return { timestamp: Date.now(), ...said, value: valueOf(said.type, said.value) };
}

function valueOf(type, value) {
  if (value === null) return null;
  if (type === "Int64" || type === "DateTime") return Long.fromString(String(value));
  if (type === "UInt64") return Long.fromString(String(value), true);
  if (type === "Bytes" || type === "File") return Buffer.from(value, "base64");
  if (type === "DataSet") {
    const rows = value.rows.map((row) => row.map((cell, i) => valueOf(value.types[i], cell)));
    return { ...value, numOfColumns: value.columns.length, rows };
  }
  if (type === "Template") return { ...value, metrics: value.metrics.map(metricOf) };
  return value;
}

function remember(device, metrics) {
  for (const metric of metrics) known[device].set(metric.name, metric);
}

remember("", options.metrics.map(metricOf));
for (const [name, metrics] of Object.entries(options.devices || {})) remember(name, metrics.map(metricOf));

const client = SparkplugClient.newClient({
  serverUrl: `mqtt://127.0.0.1:${options.broker}`,
  groupId: "g",
  edgeNode: options.node,
  clientId: `sparkplug-client-${options.node}`,
  username: "",
  password: "",
  publishDeath: options.publishDeath === true,
  keepalive: 5,
  mqttOptions: { reconnectPeriod: 100 },
});

const payload = (metrics) => ({ timestamp: Date.now(), metrics });
const compress = () => (options.compress ? { compress: true, algorithm: options.compress } : undefined);

function birth() {
  told.births += 1;
  client.publishNodeBirth(payload([metricOf({ name: REBIRTH, type: "Boolean", value: false }), ...known[""].values()]), compress());
  for (const name of Object.keys(known)) if (name && !away.has(name)) deviceBirth(name);
}

function deviceBirth(name) {
  client.publishDeviceBirth(name, payload([...known[name].values()]), compress());
}

function data(device, metrics) {
  remember(device, metrics);
  if (device) client.publishDeviceData(device, payload(metrics), compress());
  else client.publishNodeData(payload(metrics), compress());
}

function obey(device, said) {
  for (const metric of said.metrics || []) {
    told.commands.push({ device, name: metric.name, type: metric.type, value: String(metric.value) });
    if (metric.name === REBIRTH) birth();
    else if (known[device].has(metric.name)) data(device, [{ ...known[device].get(metric.name), timestamp: Date.now(), value: metric.value }]);
  }
}

client.on("birth", birth);
client.on("connect", () => { told.connected = true; });
client.on("close", () => { told.connected = false; });
client.on("error", () => {}); // it tries again
client.on("ncmd", (said) => obey("", said));
client.on("dcmd", (device, said) => obey(device, said));

serve(options.control, {
  data: (request) => data(request.device || "", request.data.map(metricOf)),
  leave: ({ leave }) => {
    away.add(leave);
    client.publishDeviceDeath(leave, { timestamp: Date.now() });
  },
  join: ({ join }) => {
    away.delete(join);
    deviceBirth(join);
  },
  stop: () => client.stop(),
  ping: () => told,
});
