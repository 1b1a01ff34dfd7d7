// An OPC UA client of another make for Shopfloor's tests: one JSON request a line on stdin, one answer a line.
//
//   {"do": "connect", "as": "a", "endpoint": "opc.tcp://…", "mode": "SignAndEncrypt", "policy": "Basic256Sha256",
//    "user": "x", "password": "y", "folder": "/tmp/pki"}
//   {"do": "browse", "as": "a", "node": "i=85"}             names, ids and classes of what is below
//   {"do": "read", "as": "a", "node": "…", "attribute": "Value"}
//   {"do": "write", "as": "a", "node": "…", "type": "Double", "value": 1.5}    the StatusCode's name
//   {"do": "subscribe", "as": "a", "nodes": ["…"], "queue": 100}               {"do": "heard", "as": "a"}
//   {"do": "disconnect", "as": "a"}
"use strict";
// stdout is for answers; node-opcua says much there.
for (const word of ["log", "info", "warn", "debug"]) console[word] = console.error;
const path = require("node:path");
const readline = require("node:readline");
const {
  AttributeIds, ClientMonitoredItem, DataType, MessageSecurityMode, OPCUACertificateManager, OPCUAClient, SecurityPolicy,
  TimestampsToReturn, UserTokenType,
} = require("node-opcua");

const open = new Map();

function plain(value) {
  if (value === null || value === undefined) return null;
  if (Buffer.isBuffer(value)) return value.toString("base64");
  if (typeof value === "number" && !Number.isFinite(value)) return String(value);
  if (Array.isArray(value) && value.length === 2 && value.every((v) => Number.isInteger(v))) {
    return String((BigInt(value[0]) << 32n) | BigInt(value[1]));
  }
  if (typeof value === "object") return JSON.parse(JSON.stringify(value));
  return value;
}

function told(data) {
  // node-opcua counts a DateTime in ms; the rest it puts into its picoseconds, in units of 10 ps.
  const value = data.value || {};
  const type = DataType[value.dataType ?? 0];
  let number = plain(value.value);
  if (type === "Int64" && typeof number === "string") number = String(BigInt.asIntN(64, BigInt(number)));
  return {
    value: number, type, status: data.statusCode.name, code: data.statusCode.value,
    ms: data.sourceTimestamp ? data.sourceTimestamp.getTime() : null, pico: data.sourcePicoseconds || 0,
    server: data.serverTimestamp ? data.serverTimestamp.getTime() : null,
  };
}

const actions = {
  connect: async (request) => {
    const manager = new OPCUACertificateManager({
      rootFolder: path.join(request.folder, "pki"), automaticallyAcceptUnknownCertificate: true,
    });
    await manager.initialize();
    const client = OPCUAClient.create({
      applicationName: "peer", clientName: "peer",
      clientCertificateManager: manager, endpointMustExist: false,
      securityMode: MessageSecurityMode[request.mode || "None"],
      securityPolicy: SecurityPolicy[request.policy || "None"],
      connectionStrategy: { maxRetry: 0, initialDelay: 100 },
    });
    let session;
    try {
      await client.connect(request.endpoint);
      const identity = request.user
        ? { type: UserTokenType.UserName, userName: request.user, password: request.password }
        : { type: UserTokenType.Anonymous };
      session = await client.createSession(identity);
    } catch (error) {
      await client.disconnect().catch(() => {});
      return { refused: error.message };
    }
    open.set(request.as, { client, session, heard: [] });
    return { namespaces: await session.readNamespaceArray() };
  },
  browse: async ({ as, node }) => {
    const result = await open.get(as).session.browse(node);
    return {
      status: result.statusCode.name,
      below: (result.references || []).filter((r) => r.isForward).map((r) => ({
        name: r.browseName.name, id: r.nodeId.toString(), nodeClass: r.nodeClass, type: r.typeDefinition.toString(),
      })),
    };
  },
  read: async ({ as, node, attribute = "Value" }) =>
    told(await open.get(as).session.read({ nodeId: node, attributeId: AttributeIds[attribute] })),
  write: async ({ as, node, type, value, attribute = "Value" }) => {
    const status = await open.get(as).session.write({
      nodeId: node, attributeId: AttributeIds[attribute], value: { value: { dataType: DataType[type], value } },
    });
    return { status: status.name };
  },
  subscribe: async ({ as, nodes, queue = 100 }) => {
    const { session, heard } = open.get(as);
    const subscription = await session.createSubscription2({
      requestedPublishingInterval: 20, requestedLifetimeCount: 6000, requestedMaxKeepAliveCount: 100,
      maxNotificationsPerPublish: 0, publishingEnabled: true, priority: 1,
    });
    for (const node of nodes) {
      const item = ClientMonitoredItem.create(
        subscription, { nodeId: node, attributeId: AttributeIds.Value },
        { samplingInterval: 0, queueSize: queue, discardOldest: true }, TimestampsToReturn.Both,
      );
      item.on("changed", (data) => heard.push({ node, ...told(data) }));
      await new Promise((resolve) => item.once("initialized", resolve));
    }
    return {};
  },
  heard: async ({ as }) => ({ heard: open.get(as).heard }),
  disconnect: async ({ as }) => {
    const { client, session } = open.get(as);
    open.delete(as);
    await session.close().catch(() => {});
    await client.disconnect().catch(() => {});
    return {};
  },
};

process.stdout.write(JSON.stringify({ ready: true }) + "\n");
readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = await actions[request.do](request);
  } catch (error) {
    answer = { error: error.message };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}).on("close", () => process.exit(0));
