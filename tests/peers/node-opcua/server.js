// An OPC UA server of another make for Shopfloor's tests and benches.
//
// node server.js '{"port": 4840, "control": 4841, "folder": "/tmp/x", …}'
//   security  modes to offer, of "None", "Sign", "SignAndEncrypt" (default: None)
//   policies  security policies to offer (default: Basic256Sha256)
//   users     {"name": "password"}; with users nobody is anonymous unless "anonymous": true
//   accept    whether unknown client certificates are accepted (default: true)
//   tags      how many Bench.<i> variables there are besides the named ones
//   path      the endpoint's path
//
// The control port takes one JSON object a line and answers with one: {"set": "PV", "value": 1.5},
// {"get": "PV"}, {"kick": true} (ends every session and subscription), {"burst": "PV", "values": […]}, {"remove": "PV"}, {"create": "PV", "type": "Double", "value": 0},
// {"run": 100, "from": 0, "to": 1000} changes Bench variables every 100 ms, {"run": 0} stops that.
"use strict";
const fs = require("node:fs");
const net = require("node:net");
const path = require("node:path");
const {
  AccessLevelFlag, DataType, MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes,
  Variant, VariantArrayType, standardUnits,
} = require("node-opcua");

const options = JSON.parse(process.argv[2] || "{}");
const folder = options.folder;
const variables = new Map();

function variantOf(type, value) {
  if (Array.isArray(value)) {
    return new Variant({ dataType: DataType[type], arrayType: VariantArrayType.Array, value });
  }
  if (type === "ByteString") return new Variant({ dataType: DataType.ByteString, value: Buffer.from(value, "base64") });
  if (type === "DateTime") return new Variant({ dataType: DataType.DateTime, value: new Date(value) });
  if (type === "UInt64" || type === "Int64") {
    const bits = BigInt.asUintN(64, BigInt(value));
    return new Variant({ dataType: DataType[type], arrayType: VariantArrayType.Scalar, value: [Number(bits >> 32n), Number(bits & 0xffffffffn)] });
  }
  if (type === "Double" && typeof value === "string") return new Variant({ dataType: DataType.Double, value: Number(value) });
  return new Variant({ dataType: DataType[type], value });
}

function addVariable(namespace, parent, name, type, value, more = {}) {
  const array = Array.isArray(value);
  const variable = namespace.addVariable({
    componentOf: parent, browseName: name, nodeId: `s=${name}`, dataType: DataType[type],
    valueRank: array ? 1 : -1, ...(array ? { arrayDimensions: [0] } : {}),
    minimumSamplingInterval: 0, ...more,
  });
  variable.setValueFromSource(variantOf(type, value));
  variables.set(name, { variable, type });
  return variable;
}

async function main() {
  const certificates = (name, automaticallyAcceptUnknownCertificate) =>
    new OPCUACertificateManager({ rootFolder: path.join(folder, name), automaticallyAcceptUnknownCertificate });
  const users = options.users || null;
  const server = new OPCUAServer({
    hostname: "127.0.0.1",
    port: options.port,
    resourcePath: options.path || "",
    alternateHostname: ["127.0.0.1", "localhost"],
    allowAnonymous: !users || options.anonymous === true,
    securityModes: (options.security || ["None"]).map((mode) => MessageSecurityMode[mode]),
    securityPolicies: [SecurityPolicy.None, ...(options.policies || ["Basic256Sha256"]).map((p) => SecurityPolicy[p])],
    serverCertificateManager: certificates("pki", options.accept !== false),
    userCertificateManager: certificates("users", true),
    userManager: users ? { isValidUser: (name, password) => users[name] === password } : undefined,
    buildInfo: { productName: "Shopfloor peer", buildNumber: "1", buildDate: new Date(0) },
    serverCapabilities: {
      maxSessions: 50,
      maxSubscriptions: 100,
      maxSubscriptionsPerSession: 20,
      maxMonitoredItems: 200000, maxMonitoredItemsPerSubscription: 200000, maxMonitoredItemsQueueSize: 100000,
      operationLimits: { maxNodesPerRead: 1000, maxNodesPerBrowse: 1000, maxMonitoredItemsPerCall: 1000 },
      minSupportedSampleRate: 0,
    },
    maxConnectionsPerEndpoint: 50,
    isAuditing: false,
    registerServerMethod: 1, // hidden: no discovery server
  });
  await server.initialize();
  const space = server.engine.addressSpace;
  const namespace = space.registerNamespace("urn:shopfloor:peer");
  const press = namespace.addObject({ organizedBy: space.rootFolder.objects, browseName: "Press", nodeId: "s=Press" });

  addVariable(namespace, press, "PV", "Double", 0);
  addVariable(namespace, press, "SP", "Double", 1);
  addVariable(namespace, press, "Count", "UInt32", 0);
  addVariable(namespace, press, "Big", "UInt64", "18446744073709551615");
  addVariable(namespace, press, "Small", "Int64", "-9223372036854775808");
  addVariable(namespace, press, "Level", "Float", 1.5);
  addVariable(namespace, press, "Running", "Boolean", true);
  addVariable(namespace, press, "Order", "String", "A-4711 Größe");
  addVariable(namespace, press, "Blob", "ByteString", Buffer.from([0, 255, 7]).toString("base64"));
  addVariable(namespace, press, "Since", "DateTime", "2026-03-29T01:30:00.123Z");
  addVariable(namespace, press, "Curve", "Double", [1, 2.5, -3]);
  addVariable(namespace, press, "Byte", "Byte", 200);
  addVariable(namespace, press, "Locked", "Double", 5, { accessLevel: "CurrentRead", userAccessLevel: "CurrentRead" });
  const analog = namespace.addAnalogDataItem({
    componentOf: press, browseName: "Pressure", nodeId: "s=Pressure", dataType: DataType.Double,
    engineeringUnitsRange: { low: 0, high: 200 }, engineeringUnits: standardUnits.bar, minimumSamplingInterval: 0,
    value: { dataType: DataType.Double, value: 10 }, description: "Hydraulic pressure",
  });
  variables.set("Pressure", { variable: analog, type: "Double" });

  const bench = namespace.addObject({ organizedBy: space.rootFolder.objects, browseName: "Bench", nodeId: "s=BenchFolder" });
  const benched = [];
  for (let i = 0; i < (options.tags || 0); i++) {
    benched.push(addVariable(namespace, bench, `Bench.${i}`, "Double", i));
  }

  let timer = null;
  let round = 0;
  const commands = {
    set: ({ set, value, type, status, time }) => {
      const known = variables.get(set);
      const moment = time ? new Date(time) : undefined;
      known.variable.setValueFromSource(variantOf(type || known.type, value), StatusCodes[status || "Good"], moment);
      return {};
    },
    kick: () => {
      for (const session of Object.values(server.engine._sessions)) {
        server.engine.closeSession(session.authenticationToken, true, "Timeout");
      }
      const orphans = server.engine._orphanPublishEngine;
      for (const orphan of Object.values(orphans ? orphans._subscriptions : {})) {
        server.engine.deleteOrphanSubscription(orphan);
      }
      return {};
    },
    get: ({ get }) => {
      const value = variables.get(get).variable.readValue().value.value;
      return { value: Buffer.isBuffer(value) ? value.toString("base64") : ArrayBuffer.isView(value) ? [...value] : value };
    },
    burst: ({ burst, values }) => {
      const known = variables.get(burst);
      for (const value of values) known.variable.setValueFromSource(variantOf(known.type, value));
      return {};
    },
    remove: ({ remove }) => {
      space.deleteNode(variables.get(remove).variable);
      variables.delete(remove);
      return {};
    },
    create: ({ create, type, value }) => {
      addVariable(namespace, press, create, type, value);
      return {};
    },
    run: ({ run, from = 0, to = benched.length }) => {
      clearInterval(timer);
      if (run > 0) {
        const variant = new Variant({ dataType: DataType.Double, value: 0 });
        timer = setInterval(() => {
          round += 1;
          const now = new Date();
          for (let i = from; i < to; i++) {
            variant.value = i + round;
            benched[i].setValueFromSource(variant, StatusCodes.Good, now);
          }
        }, run);
      }
      return { round };
    },
    ping: () => ({ sessions: server.engine.currentSessionCount, subscriptions: server.engine.currentSubscriptionCount }),
  };

  await server.start();
  net.createServer((socket) => {
    let rest = "";
    socket.on("error", () => {});
    socket.on("data", (data) => {
      const lines = (rest + data).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        let answer;
        try {
          const request = JSON.parse(line);
          const name = Object.keys(commands).find((key) => key in request);
          answer = commands[name](request);
        } catch (error) {
          answer = { error: String(error.stack || error) };
        }
        socket.write(`${JSON.stringify(answer)}\n`);
      }
    });
  }).listen(options.control, "127.0.0.1", () => process.stdout.write("ready\n"));

  const stop = async () => {
    await server.shutdown(0);
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

fs.mkdirSync(folder, { recursive: true });
main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
