// Draws the avatars: 6,000 seeded faces, 64x64 colour, into train-*.png, validation-*.png, test-*.png and their labels.
//   npm install @dicebear/core@9.4.3 @dicebear/collection@9.4.3 @resvg/resvg-js@2.6.2     (anywhere)
//   node make.mjs OUT && python pack.py OUT
// Ten looks are the classes. A look fixes the hair, and with probability 0.8 each of beard, mouth, eyes and clothes: what a
// hole hides is partly told by what stays visible, as in photographs. Colours, place and size are drawn freely.
import { mkdirSync, writeFileSync } from "node:fs";
import { createAvatar } from "@dicebear/core";
import { toonHead } from "@dicebear/collection";
import { Resvg } from "@resvg/resvg-js";

const SIZE = 64, FAITHFUL = 0.8, SPLITS = { train: 4000, validation: 800, test: 1200 };
const LOOKS = [
  // name, hair, rear hair, beard, mouth, eyes, clothes ("": none)
  ["bun", "bun", "", "", "smile", "happy", "turtleNeck"],
  ["bun, long hair", "bun", "longStraight", "", "agape", "wide", "dress"],
  ["bun, wavy hair", "bun", "longWavy", "", "sad", "humble", "shirt"],
  ["parting", "sideComed", "", "moustacheTwirl", "smile", "wink", "shirt"],
  ["parting, wavy hair", "sideComed", "longWavy", "", "laugh", "happy", "openJacket"],
  ["parting, shoulder length", "sideComed", "shoulderHigh", "chin", "angry", "bow", "tShirt"],
  ["undercut", "undercut", "", "fullBeard", "angry", "bow", "openJacket"],
  ["undercut, neck length", "undercut", "neckHigh", "chinMoustache", "sad", "humble", "turtleNeck"],
  ["spikes", "spiky", "", "", "laugh", "wide", "tShirt"],
  ["spikes, long hair", "spiky", "longStraight", "longBeard", "agape", "wink", "dress"],
];
const PARTS = {
  beard: ["", "moustacheTwirl", "fullBeard", "chin", "chinMoustache", "longBeard"],
  mouth: ["laugh", "angry", "agape", "smile", "sad"],
  eyes: ["happy", "wide", "bow", "humble", "wink"],
  clothes: ["turtleNeck", "openJacket", "dress", "shirt", "tShirt"],
  eyebrows: ["raised", "angry", "happy", "sad", "neutral"],
};
const COLOURS = {
  skinColor: ["f1c3a5", "c68e7a", "b98e6a", "a36b4f", "5c3829"],
  hairColor: ["2c1b18", "a55728", "b58143", "d6b370", "724133"],
  clothesColor: ["545454", "b11f1f", "0b3286", "147f3c", "eab308", "731ac3", "ec4899", "f97316", "151613", "e8e9e6"],
  backgroundColor: ["b6e3f4", "c0aede", "d1d4f9", "ffd5dc", "ffdfbf", "d5f0d0"],
};

/** Uniform numbers in [0, 1) from a 32-bit seed (mulberry32). */
function stream(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Options of one face of look `label`; every part is named, so nothing is left to the library's own draws. */
function face(label, random) {
  const pick = (list) => list[Math.floor(random() * list.length)];
  const [, hair, rearHair, beard, mouth, eyes, clothes] = LOOKS[label];
  const usual = { beard, mouth, eyes, clothes };
  const options = { seed: "face", hair: [hair], rearHair: rearHair ? [rearHair] : [], rearHairProbability: rearHair ? 100 : 0 };
  for (const [part, list] of Object.entries(PARTS)) {
    const drawn = pick(list);
    options[part] = [part in usual && random() < FAITHFUL ? usual[part] : drawn];
  }
  options.beardProbability = options.beard[0] ? 100 : 0;
  if (!options.beard[0]) options.beard = [];
  for (const [colour, list] of Object.entries(COLOURS)) options[colour] = [pick(list)];
  return { ...options, flip: random() < 0.5, scale: 100 + Math.floor(random() * 16),
           translateX: Math.floor(random() * 9) - 4, translateY: Math.floor(random() * 5) };
}

const out = process.argv[2];
mkdirSync(out, { recursive: true });
const seen = new Set();
let seed = 0;
for (const [split, n] of Object.entries(SPLITS)) {
  const pixels = Buffer.alloc(n * SIZE * SIZE * 3), labels = Buffer.alloc(n);
  for (let i = 0; i < n; ) {
    const random = stream(seed++), label = Math.floor(random() * LOOKS.length);
    const svg = createAvatar(toonHead, face(label, random)).toString();
    if (seen.has(svg)) continue;                // no face twice, in no split
    seen.add(svg);
    const rgba = new Resvg(svg, { fitTo: { mode: "width", value: SIZE } }).render().pixels;
    for (let p = 0; p < SIZE * SIZE; p++) rgba.copy(pixels, (i * SIZE * SIZE + p) * 3, p * 4, p * 4 + 3);
    labels[i++] = label;
  }
  writeFileSync(`${out}/${split}.rgb`, pixels);
  writeFileSync(`${out}/${split}.labels`, labels);
}
console.log(`${seed} drawn, classes: ${LOOKS.map((look) => look[0]).join("; ")}`);
