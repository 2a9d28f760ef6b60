// A broadcast server as one writes it with Node's `ws`: for every message, for every client, `send`.
// See README.md for what it hears and says.

import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { WebSocketServer } from "ws";

const subscribed = new Set();

const http = createServer(async (request, response) => {
  if (request.method !== "POST") return response.writeHead(404).end();
  const { channel, data } = JSON.parse(await text(request));
  const message = JSON.stringify({ type: "message", channel, payload: data, timestamp: new Date() });
  for (const client of subscribed) client.send(message);
  response.end('{"accepted":1}');
});
const server = new WebSocketServer({ server: http, perMessageDeflate: false });
server.on("connection", (client) => {
  client.on("message", (request) => {
    const { type, channels } = JSON.parse(request);
    if (type !== "subscribe") return;
    client.send(JSON.stringify({ type: "subscribed", channels }));
    subscribed.add(client);
  });
  client.on("error", () => {});
  client.on("close", () => subscribed.delete(client));
});
http.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, () =>
  console.log(`ws listening on http://127.0.0.1:${http.address().port}`),
);
