// socket.io: `message` is emitted to all, the sender included.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const { port, backlog, maxSize } = JSON.parse(process.argv[2]);
const server = createServer();
const io = new Server(server, { transports: ['websocket'], maxHttpBufferSize: maxSize, serveClient: false });

io.on('connection', (socket) => {
  // Said once, for the case of idle memory: a reply to whoever asks.
  socket.on('message', (data) => io.emit('message', data));
});
server.listen({ port, host: '127.0.0.1', backlog });
