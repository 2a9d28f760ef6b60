// A broadcast server as one writes it with Bun, whose WebSocket server is uWebSockets: topics and `publish`.
// See README.md for what it hears and says.

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  async fetch(request, server) {
    if (server.upgrade(request)) return;
    if (request.method !== "POST") return new Response(null, { status: 404 });
    const { channel, data } = await request.json();
    server.publish(channel, JSON.stringify({ type: "message", channel, payload: data, timestamp: new Date() }));
    return Response.json({ accepted: 1 });
  },
  websocket: {
    message(client, request) {
      const { type, channels } = JSON.parse(request);
      if (type !== "subscribe") return;
      client.send(JSON.stringify({ type: "subscribed", channels }));
      for (const channel of channels) client.subscribe(channel);
    },
  },
});
console.log(`bun listening on http://127.0.0.1:${server.port}`);
