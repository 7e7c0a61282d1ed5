// Two languages over one page: every text names its key on its element, so switching translates what is already there.

import { BANK } from "./bank.js";
import { TEXTS } from "./texts.js";

const REMEMBERED = "bank.language";
const TARGETS = { i18n: null, i18nLabel: "aria-label", i18nAlt: "alt" };

let language = "ko";
let zone = "Asia/Seoul";

/** Return the language that was chosen before, or the browser's: Korean or English. */
export function preferredLanguage() {
  const chosen = remembered();
  if (chosen in TEXTS) return chosen;
  return (navigator.language || "ko").toLowerCase().startsWith("ko") ? "ko" : "en";
}

/** Speak `chosen` from now on, also in what is already on the page. */
export function setLanguage(chosen) {
  language = chosen;
  remember(chosen);
  document.documentElement.lang = chosen;
  document.title = t("page_title");
  for (const target of Object.keys(TARGETS)) {
    const attribute = `data-${target.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const element of document.querySelectorAll(`[${attribute}]`)) apply(element, target);
  }
}

/** Show times as the bank's clocks do. */
export function setZone(name) {
  zone = name;
}

/** Return the bank's date and time at this moment, as fields of a form take them. */
export function bankNow() {
  const fields = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const told = new Intl.DateTimeFormat("en", { timeZone: zone, ...fields }).formatToParts(new Date());
  const parts = Object.fromEntries(told.map(({ type, value }) => [type, value]));
  return { date: `${parts.year}-${parts.month}-${parts.day}`, time: `${parts.hour}:${parts.minute}` };
}

/** Return the text `key`, of "one|many" the form for the value `count`, with `{name}` filled in; values may be `{date}`, `{at}`, `{seconds}`, `{bytes}` or `{said}`. */
export function t(key, values = {}) {
  const [one, many = one] = (TEXTS[language][key] ?? key).split("|");
  const text = values.count === 1 ? one : many;
  return text.replace(/\{(\w+)\}/g, (_, name) => (name === "bank" ? BANK.names[language] : shown(values[name])));
}

/** Make `element` say `key`, now and after every switch; `target` is i18n, i18nLabel or i18nAlt. */
export function say(element, key, values = {}, target = "i18n") {
  element.dataset[target] = key;
  if (Object.keys(values).length) element.dataset.i18nValues = JSON.stringify(values);
  else if (target === "i18n") delete element.dataset.i18nValues;
  apply(element, target);
  return element;
}

/** Return whether the text `key` exists. */
export const has = (key) => key in TEXTS[language];

function apply(element, target) {
  const text = t(element.dataset[target], JSON.parse(element.dataset.i18nValues ?? "{}"));
  if (TARGETS[target]) element.setAttribute(TARGETS[target], text);
  else element.textContent = text;
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return value.toLocaleString(language);
  if (typeof value !== "object") return String(value);
  if ("said" in value) return t(value.said);
  if ("seconds" in value) return duration(value.seconds);
  if ("bytes" in value) return size(value.bytes);
  if ("date" in value) return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" }).format(new Date(value.date));
  const style = { dateStyle: "medium", timeStyle: "short", timeZone: zone };
  return new Intl.DateTimeFormat(language, style).format(new Date(value.at * 1000));
}

function duration(seconds) {
  const s = Math.max(1, Math.ceil(seconds));
  return s < 120 ? counted(s, "second") : counted(Math.ceil(s / 60), "minute");
}

function size(bytes) {
  if (bytes < 1024 * 1024) return counted(Math.max(1, Math.round(bytes / 1024)), "kilobyte", "short");
  return counted(Math.round(bytes / 1024 / 1024), "megabyte", "short");
}

const counted = (n, unit, unitDisplay = "long") => n.toLocaleString(language, { style: "unit", unit, unitDisplay });

function remembered() {
  try {
    return localStorage.getItem(REMEMBERED);
  } catch {
    return null; // storage is forbidden in some private windows; the page works without
  }
}

function remember(chosen) {
  try {
    localStorage.setItem(REMEMBERED, chosen);
  } catch {
    // as above
  }
}
