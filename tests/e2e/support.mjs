// A gateway of our own, and a network between it and its clients that can fail.

import { spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

/** Start a gateway process; `settings` are its environment, as in `{ FASTWS_CLIENT_PING_INTERVAL: "1s" }`. */
export async function startGateway(settings = {}, port = 0) {
  const args = ["-m", "gateway", "serve", "--port", String(port)];
  const child = spawn(process.env.PYTHON ?? "python3", args, {
    cwd: ROOT,
    env: { ...process.env, FASTWS_DEV: "true", FASTWS_LOG_FORMAT: "json", ...settings },
    stdio: ["ignore", "inherit", "pipe"],
  });
  running.add(child);
  const exited = once(child, "exit");
  exited.then(() => running.delete(child));
  const log = [];
  const listening = new Promise((resolve, reject) => {
    exited.then(() => reject(new Error(`the gateway ended:\n${log.join("\n")}`)));
    readline.createInterface({ input: child.stderr }).on("line", (line) => {
      log.push(line);
      if (!line.startsWith("{")) return;
      const record = JSON.parse(line);
      if (record.event === "listening") resolve(record.port);
    });
  });
  return {
    port: await listening,
    log,
    /** SIGTERM; gives the exit code. */
    async stop() {
      child.kill("SIGTERM");
      const [code] = await exited;
      return code;
    },
  };
}

/** Chromium, whose path is in CHROMIUM, quiet on the network. */
export function launch(more = []) {
  const quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-quic"];
  const args = process.getuid() === 0 ? [...quiet, ...more, "--no-sandbox"] : [...quiet, ...more];
  return chromium.launch({ executablePath: process.env.CHROMIUM, args });
}

/** A TCP proxy on a port of its own, which can be cut, and stalled as a dead network is. */
export class Network {
  #pairs = new Set();
  #server;

  static async to(port) {
    const network = new Network();
    network.#server = net.createServer((near) => network.#join(near, port));
    network.#server.listen(0, "127.0.0.1");
    await once(network.#server, "listening");
    network.port = network.#server.address().port;
    return network;
  }

  state = "up";

  #join(near, port) {
    if (this.state === "cut") return void near.destroy();
    const far = net.connect(port, "127.0.0.1");
    const pair = [near, far];
    this.#pairs.add(pair);
    for (const [from, to] of [pair, [far, near]]) {
      from.on("data", (bytes) => this.state === "up" && to.write(bytes));
      from.on("end", () => this.state === "up" && to.end());
      from.on("error", () => {});
      from.on("close", () => {
        if (this.state !== "up") return;
        to.destroy();
        this.#pairs.delete(pair);
      });
    }
  }

  /** End all connections and refuse new ones. */
  cut() {
    this.state = "cut";
    this.#drop();
  }

  /** From now on nothing goes through, and nobody is told. */
  stall() {
    this.state = "stalled";
  }

  /** Work again, for new connections. */
  restore() {
    this.#drop();
    this.state = "up";
  }

  #drop() {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#pairs.clear();
  }

  stop() {
    this.cut();
    this.#server.close();
  }
}

/** Wait until something is true; it may be asynchronous. */
export async function until(condition, what = String(condition), seconds = 10) {
  const end = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
