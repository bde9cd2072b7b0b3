// The npm package `centrifuge` puts together what our gateway takes apart: deltas, live and recovered.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Network, startGateway, until } from "./support.mjs";

let gateway;
let network;

before(async () => {
  gateway = await startGateway({
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE: "100",
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL: "1m",
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_ALLOWED_DELTA_TYPES: "fossil",
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_DELTA_PUBLISH: "true",
  });
  network = await Network.to(gateway.port);
});

after(async () => {
  network.stop();
  assert.equal(await gateway.stop(), 0);
});

async function subscribe(port, options) {
  const client = new Centrifuge(`ws://127.0.0.1:${port}/connection/websocket`, {
    websocket: WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
  });
  const room = client.newSubscription("room", options);
  room.heard = [];
  room.on("publication", ({ data }) => room.heard.push(data));
  room.on("error", (error) => assert.fail(JSON.stringify(error)));
  client.connect();
  room.subscribe();
  await room.ready();
  return { client, room };
}

// A number that depends on nothing but those before, so that a failure can be had again.
let seed = 1;
const random = (below) => {
  seed = (seed * 48271) % 2147483647;
  return seed % below;
};
const WORDS = ["price", "größe", "名前", "😀", 'a "quoted" one', "back\\slash", "line\nbreak", "\u2028", ""];

/** Change a document a little: rows are set, added, taken away and moved. */
function change(document) {
  const rows = document.rows.slice();
  for (let n = 1 + random(3); n > 0; n -= 1) {
    const place = random(rows.length);
    const row = { name: WORDS[random(WORDS.length)].repeat(1 + random(3)), value: random(100000) };
    if (random(4) === 0) rows.splice(place, 0, row);
    else if (random(4) === 0 && rows.length > 5) rows.push(...rows.splice(place, 1));
    else if (random(4) === 0 && rows.length > 5) rows.splice(place, 1);
    else rows[place] = row;
  }
  return { rows };
}

test("what comes as deltas is what was published, and what was missed too", async () => {
  const taker = await subscribe(network.port, { delta: "fossil", recoverable: true });
  const plain = await subscribe(gateway.port, {});
  const sent = [];
  let document = { rows: Array.from({ length: 20 }, (_, n) => ({ name: WORDS[n % 9], value: n })) };
  const publish = async (count) => {
    for (let n = 0; n < count; n += 1) {
      document = change(document);
      sent.push(document);
      await plain.client.publish("room", document);
    }
  };

  await publish(300);
  await until(() => taker.room.heard.length === 300);
  assert.deepEqual(taker.room.heard, sent);
  const live = taker.room.deltaStats();
  assert.equal(live.numDeltaPayloads, 299);
  assert.ok(live.compressionRatio > 0.6, `${live.compressionRatio}`);

  const connecting = new Promise((resolve) => taker.client.once("connecting", resolve));
  network.cut();
  await connecting;
  await publish(50);
  network.restore();
  await until(() => taker.room.heard.length === 350);
  await publish(10);
  await until(() => taker.room.heard.length === 360);
  assert.deepEqual(taker.room.heard, sent);
  assert.ok(taker.room.deltaStats().numDeltaPayloads >= 299 + 49 + 9);
  assert.deepEqual(plain.room.heard, sent);
  taker.client.disconnect();
  plain.client.disconnect();
});
