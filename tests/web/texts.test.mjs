import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { TEXTS } from "../customers/texts.js";

const WEB = new URL("../customers/", import.meta.url);
const placeholders = (text) => [...text.matchAll(/\{\w+\}/g)].map(([name]) => name).sort();

test("both languages say the same things and fill in the same values", () => {
  assert.deepEqual(Object.keys(TEXTS.ko).sort(), Object.keys(TEXTS.en).sort());
  for (const [key, text] of Object.entries(TEXTS.ko)) assert.deepEqual(placeholders(text), placeholders(TEXTS.en[key]), key);
});

test("no language is forgotten in the other one's texts", () => {
  for (const [key, text] of Object.entries(TEXTS.en)) assert.doesNotMatch(text, /[가-힣]/, key);
  for (const [key, text] of Object.entries(TEXTS.ko)) if (!/^(counter|turn_place)/.test(key)) assert.match(text, /[가-힣]/, key);
});

test("every text that the page names exists, and every text is used", () => {
  const sources = readdirSync(WEB).filter((name) => /\.(js|html)$/.test(name) && name !== "texts.js");
  const code = sources.map((name) => readFileSync(new URL(name, WEB), "utf8")).join("\n");
  const named = [...code.matchAll(/data-i18n(?:-label|-placeholder)?="(\w+)"/g)].map(([, key]) => key);
  for (const key of named) assert.ok(key in TEXTS.ko, key);
  const built = /^(end|trouble)_/; // put together from a code of the server
  for (const key of Object.keys(TEXTS.ko)) if (!built.test(key)) assert.match(code, new RegExp(`"${key}"`), key);
});

test("every way an answer may be cut short has its sentence", () => {
  for (const reason of ["length", "budget", "cancelled", "error", "missing"]) {
    assert.ok(`end_${reason}` in TEXTS.ko, reason);
  }
});

test("only a pointer hovers: a finger would leave the style on what it touched last", () => {
  for (const page of ["customers", "staff"]) {
    const folder = new URL(`../${page}/`, import.meta.url);
    for (const name of readdirSync(folder).filter((file) => file.endsWith(".css"))) {
      const styles = readFileSync(new URL(name, folder), "utf8").replace(/@media \(hover: hover\) \{(?:[^{}]*\{[^{}]*\})*\s*\}/g, "");
      assert.doesNotMatch(styles, /:hover/, name);
    }
  }
});
