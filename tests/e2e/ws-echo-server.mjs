// An echo server with npm's `ws`: prints its port, and runs until its input ends.
import { WebSocketServer } from "ws";

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  maxPayload: 2 ** 24,
  handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
});
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => {
    const [word, code, ...reason] = isBinary ? [] : data.toString().split(" ");
    if (word === "close") socket.close(Number(code), reason.join(" "));
    else socket.send(data, { binary: isBinary });
  });
  socket.on("error", () => {});
});
process.stdin.resume().on("end", () => process.exit());
