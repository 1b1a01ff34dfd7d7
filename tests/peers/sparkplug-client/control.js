// The control port of these peers: a JSON object a line, each answered by one.
"use strict";
const net = require("node:net");

exports.serve = (port, requests) => {
  net.createServer((socket) => {
    let rest = "";
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      const lines = (rest + bytes).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        let answer;
        try {
          const request = JSON.parse(line);
          answer = requests[Object.keys(requests).find((key) => key in request)](request) || {};
        } catch (error) {
          answer = { error: String(error.stack || error) };
        }
        socket.write(`${JSON.stringify(answer)}\n`);
      }
    });
  }).listen(port, "127.0.0.1");
  process.on("SIGTERM", () => process.exit(0));
};
