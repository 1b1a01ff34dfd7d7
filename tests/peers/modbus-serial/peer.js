// A Modbus TCP server, or one request of a master, made with npm's modbus-serial.
//
// node peer.js serve PORT CONTROL   the control port takes one JSON object a line and answers with one:
//   {"set": "holding", "address": 0, "values": […]}, {"get": "holding", "address": 0, "count": 2},
//   {"bad": [address, …]} answers exception 2 to them, {"silent": [unit, …]} does not answer them at all;
//   without "get" the answer lists the requests since the last time: [kind, unit, address, count]
// node peer.js ask MODE PORT FUNCTION ADDRESS COUNT|VALUE…   MODE: tcp, rtu (RTU over TCP)
"use strict";
const Modbus = require("modbus-serial");
const net = require("net");
const readline = require("readline");

const [verb, ...rest] = process.argv.slice(2);

function serve(port, control) {
  const kinds = { holding: new Uint16Array(65536), input: new Uint16Array(65536) };
  const bits = { coil: new Uint8Array(65536), discrete: new Uint8Array(65536) };
  let bad = [];
  let silent = [];
  const requests = [];
  function checked(kind, unit, address, count) {
    requests.push([kind, unit, address, count]);
    if (bad.some((one) => one >= address && one < address + count)) {
      const error = new Error("illegal address");
      error.modbusErrorCode = 2;
      throw error;
    }
  }
  const later = (unit, answer) => (silent.includes(unit) ? new Promise(() => {}) : answer());
  // The library wants a callback here and takes promises below.
  function several(kind, address, count, unit, done) {
    if (silent.includes(unit)) return;
    try {
      checked(kind, unit, address, count);
      done(null, Array.from(kinds[kind].subarray(address, address + count)));
    } catch (error) {
      done(error);
    }
  }
  const vector = {
    getMultipleHoldingRegisters: (address, count, unit, done) => several("holding", address, count, unit, done),
    getMultipleInputRegisters: (address, count, unit, done) => several("input", address, count, unit, done),
    getHoldingRegister: (address, unit) => later(unit, async () => {
      checked("holding", unit, address, 1);
      return kinds.holding[address];
    }),
    getInputRegister: (address, unit) => later(unit, async () => {
      checked("input", unit, address, 1);
      return kinds.input[address];
    }),
    getCoil: (address, unit) => later(unit, async () => {
      checked("coil", unit, address, 1);
      return Boolean(bits.coil[address]);
    }),
    getDiscreteInput: (address, unit) => later(unit, async () => {
      checked("discrete", unit, address, 1);
      return Boolean(bits.discrete[address]);
    }),
    setRegister: (address, value, unit) => later(unit, async () => {
      checked("write", unit, address, 1);
      kinds.holding[address] = value;
    }),
    setCoil: (address, value, unit) => later(unit, async () => {
      checked("write", unit, address, 1);
      bits.coil[address] = value ? 1 : 0;
    }),
  };
  new Modbus.ServerTCP(vector, { host: "127.0.0.1", port: Number(port), unitID: 255 });
  const all = { ...kinds, ...bits };
  net.createServer((socket) => {
    readline.createInterface({ input: socket }).on("line", (line) => {
      const said = JSON.parse(line);
      if (said.set) all[said.set].set(said.values, said.address);
      if (said.bad) bad = said.bad;
      if (said.silent) silent = said.silent;
      const got = said.get && Array.from(all[said.get].subarray(said.address, said.address + said.count));
      socket.write(JSON.stringify(got || requests.splice(0)) + "\n");
    });
    socket.on("error", () => {});
  }).listen(Number(control), "127.0.0.1");
}

async function ask(mode, port, method, ...numbers) {
  const client = new Modbus();
  const options = { port: Number(port) };
  await (mode === "rtu" ? client.connectTelnet("127.0.0.1", options) : client.connectTCP("127.0.0.1", options));
  client.setID(1);
  client.setTimeout(3000);
  try {
    const [address, ...more] = numbers.map((text) => JSON.parse(text));
    const found = await client[method](address, ...more);
    process.stdout.write(JSON.stringify(found.data ?? found) + "\n");
  } catch (error) {
    process.stdout.write(JSON.stringify({ code: error.modbusCode, message: error.message }) + "\n");
  }
  client.close(() => process.exit(0));
}

if (verb === "serve") serve(...rest);
else ask(...rest);
