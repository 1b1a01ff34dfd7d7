// Reads and writes data files of an SLC 500 or MicroLogix with npm's nodepccc, and says on a line of JSON what came of it.
//
// node client.js PORT '{"read": ["N7:0", …], "write": [["F8:2", 55.5], …]}'
//   {"values": {address: value, …}, "written": [true, …]}; written first, then read
"use strict";
// Its way of making buffers is an old one that Node warns of; it writes its own notes to where the answer goes.
process.noDeprecation = true;
console.log = () => {};
const NodePCCC = require("nodepccc");

const [port, asked] = process.argv.slice(2);
const { read = [], write = [] } = JSON.parse(asked);
const plc = new NodePCCC();

const written = (address, value) =>
  new Promise((done) => plc.writeItems(address, value, (bad) => done(!bad)));
const all = () => new Promise((done) => plc.readAllItems((_, values) => done(values)));

async function main() {
  const results = [];
  for (const [address, value] of write) results.push(await written(address, value));
  plc.addItems(read);
  const values = read.length ? await all() : {};
  process.stdout.write(JSON.stringify({ values, written: results }) + "\n", () => process.exit(0));
}

plc.initiateConnection({ port: Number(port), host: "127.0.0.1" }, (error) => {
  if (error) {
    process.stderr.write(`${error}\n`);
    process.exit(1);
  }
  main();
});
