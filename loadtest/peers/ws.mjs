// A broadcast server as one writes it with Node's `ws`: every tick, every client, `send`.
//
// node ws.mjs MESSAGES MILLISECONDS: sends the lines of a file in rotation. Greets the swarm on
// json.webpubsub.azure.v1; clients hear everything once they have joined a group.

import { readFileSync } from "node:fs";
import { WebSocketServer } from "ws";

const [file, milliseconds] = process.argv.slice(2);
const messages = readFileSync(file, "utf8").trimEnd().split("\n");
const joined = new Set();

const server = new WebSocketServer({ port: 0, host: "127.0.0.1", backlog: 4096, perMessageDeflate: false });
server.on("connection", (client) => {
  client.send('{"type":"system","event":"connected","userId":"swarm","connectionId":"ws"}');
  client.on("message", (data) => {
    const message = JSON.parse(data);
    if (message.type === "joinGroup") {
      joined.add(client);
      client.send(JSON.stringify({ type: "ack", ackId: message.ackId, success: true }));
    }
  });
  client.on("error", () => {});
  client.on("close", () => joined.delete(client));
});
server.on("listening", () => console.log(`ws listening on http://127.0.0.1:${server.address().port}`));

let tick = 0;
setInterval(() => {
  const message = messages[tick++ % messages.length];
  for (const client of joined) client.send(message);
}, Number(milliseconds));
