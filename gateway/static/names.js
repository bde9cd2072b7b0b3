/** Names, initials and colours for people who have not chosen any. */

const FIRST =
  "Amber Brisk Calm Candid Clever Coral Curious Gentle Golden Hazel Jolly Keen Lunar Mellow Nimble " +
  "Plucky Quiet Rapid Silver Sunny Tidy Velvet Vivid Witty";
const SECOND =
  "Avocet Bittern Curlew Dipper Dunlin Egret Falcon Finch Gannet Goldcrest Heron Hoopoe Kestrel " +
  "Kingfisher Lapwing Linnet Martin Nightjar Osprey Plover Puffin Robin Swift Wren";

function pick(words) {
  const list = words.split(" ");
  return list[Math.floor(Math.random() * list.length)];
}

export function randomName() {
  return `${pick(FIRST)} ${pick(SECOND)}`;
}

export function randomId() {
  return Math.random().toString(36).slice(2, 12);
}

/** At most two letters that stand for a name. */
export function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  const chosen = words.length > 1 ? [words[0], words.at(-1)] : words;
  return chosen.map((word) => [...word][0].toUpperCase()).join("");
}

/** A hue in degrees, the same for the same text. */
export function hue(text) {
  let hash = 0;
  for (const letter of text) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return (hash * 137) % 360;
}
