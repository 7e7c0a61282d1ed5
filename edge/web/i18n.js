// Two languages over one page: every text names its key on its element, so switching translates what is already there.

import { BANK } from "./bank.js";
import { withTelephones } from "./telephone.js";
import { TEXTS } from "./texts.js";

const REMEMBERED = "bank.language";
const TARGETS = { i18n: null, i18nLabel: "aria-label", i18nPlaceholder: "placeholder", i18nAlt: "alt" };

let language = "ko";
let zone = "Asia/Seoul";

/** Return the language that was chosen before, or the browser's: Korean or English. */
export function preferredLanguage() {
  const chosen = remembered(REMEMBERED);
  if (chosen in TEXTS) return chosen;
  return (navigator.language || "ko").toLowerCase().startsWith("ko") ? "ko" : "en";
}

/** Speak `chosen` from now on, also in what is already on the page. */
export function setLanguage(chosen) {
  language = chosen;
  remember(REMEMBERED, chosen);
  document.documentElement.lang = chosen;
  document.title = t("page_title");
  for (const element of document.querySelectorAll("[data-bank-name]")) element.textContent = BANK.names[chosen];
  translate(document.body);
}

/** Show times as the bank's clocks do. */
export function setZone(name) {
  zone = name;
}

/** Return the bank's current date and time, as fields of a form take them. */
export function bankNow() {
  const fields = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const formatted = new Intl.DateTimeFormat("en", { timeZone: zone, ...fields }).formatToParts(new Date());
  const parts = Object.fromEntries(formatted.map(({ type, value }) => [type, value]));
  return { date: `${parts.year}-${parts.month}-${parts.day}`, time: `${parts.hour}:${parts.minute}` };
}

/**
 * Return the text `key`, of "one|many" the form for the value `count`, with `{name}` filled in, `{bank}` and `{phone}`
 * with the bank's own. Values may be `{day}`, `{date}`, `{at}`, `{moment}`, `{seconds}`, `{bytes}` or `{said, values}`.
 */
export function t(key, values = {}) {
  const forms = TEXTS[language][key] ?? key;
  const text = "count" in values ? forms.split("|").at(values.count === 1 ? 0 : -1) : forms;
  const filled = { phone: BANK.telephone, bank: BANK.names[language], ...values };
  return text.replace(/\{(\w+)\}/g, (_, name) => shown(filled[name]));
}

/** Make `element` say `key`, now and after every switch; `target` is one of TARGETS. */
export function say(element, key, values = {}, target = "i18n") {
  element.dataset[target] = key;
  if (Object.keys(values).length) element.dataset.i18nValues = JSON.stringify(values);
  else if (target === "i18n") delete element.dataset.i18nValues;
  apply(element, target);
  return element;
}

/** Make `element` show a date or time, now and after every switch. */
export function sayMoment(element, value) {
  element.dataset.i18nMoment = JSON.stringify(value);
  element.textContent = shown(value);
  return element;
}

/** Return whether the text `key` exists. */
export const has = (key) => key in TEXTS[language];

/** Return what the browser remembers under `name`, or null where it may not remember. */
export function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is forbidden in some private windows; the page works without
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // as above
  }
}

function translate(root) {
  for (const target of Object.keys(TARGETS)) {
    const attribute = `data-${target.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    for (const element of root.querySelectorAll(`[${attribute}]`)) apply(element, target);
  }
  for (const element of root.querySelectorAll("[data-i18n-moment]")) {
    element.textContent = shown(JSON.parse(element.dataset.i18nMoment));
  }
}

function apply(element, target) {
  const text = t(element.dataset[target], JSON.parse(element.dataset.i18nValues ?? "{}"));
  if (TARGETS[target]) element.setAttribute(TARGETS[target], text);
  else if (TEXTS[language][element.dataset[target]]?.includes("{phone}")) element.replaceChildren(...withTelephones(text));
  else element.textContent = text;
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return value.toLocaleString(language);
  if (typeof value !== "object") return String(value);
  if ("said" in value) return t(value.said, value.values);
  if ("seconds" in value) return duration(value.seconds);
  if ("bytes" in value) return size(value.bytes);
  if ("day" in value) return formatted(value.day, { dateStyle: "long", timeZone: "UTC" });
  if ("date" in value) return formatted(value.date, { dateStyle: "medium", timeZone: "UTC" });
  if ("moment" in value) return moment(new Date(value.moment * 1000));
  return formatted(value.at * 1000, { dateStyle: "medium", timeStyle: "short", timeZone: zone });
}

const formatted = (date, style) => new Intl.DateTimeFormat(language, style).format(new Date(date));

function duration(seconds) {
  const s = Math.max(1, Math.ceil(seconds));
  if (s < 120) return counted(s, "second");
  if (s < 7200) return counted(Math.ceil(s / 60), "minute");
  return counted(Math.ceil(s / 3600), "hour");
}

function size(bytes) {
  if (bytes < 1024 * 1024) return counted(Math.max(1, Math.round(bytes / 1024)), "kilobyte", "short");
  return counted(Math.round(bytes / 1024 / 1024), "megabyte", "short");
}

const counted = (n, unit, unitDisplay = "long") => n.toLocaleString(language, { style: "unit", unit, unitDisplay });

/** Return the time of a date that is today in the browser's zone, else its day. */
function moment(date) {
  const today = new Date().toDateString() === date.toDateString();
  return formatted(date, today ? { timeStyle: "short" } : { dateStyle: "medium" });
}
