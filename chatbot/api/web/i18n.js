// Two languages over one page: every text names its key on its element, so switching translates what is already there.

import { BANK } from "./bank.js";
import { withTelephones } from "./telephone.js";
import { TEXTS } from "./texts.js";

const REMEMBERED = "bank.language";
const TARGETS = { i18n: null, i18nLabel: "aria-label", i18nPlaceholder: "placeholder" };

let language = "ko";

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

/** Return the text `key` with `{name}` filled in; values may be `{date}`, `{at}` or `{wait}`, shown in the language. */
export function t(key, values = {}) {
  const text = (key === "welcome_ai" && BANK.opening?.[language]) || (TEXTS[language][key] ?? key);
  const filled = { phone: BANK.telephone, bank: BANK.names[language], ...values };
  return text.replace(/\{(\w+)\}/g, (_, name) => shown(filled[name]));
}

/** Return the questions that the bank offers in the language. */
export const offeredQuestions = () => BANK.questions[language];

/** Make `element` say `key`, now and after every switch; `target` is i18n, i18nLabel or i18nPlaceholder. */
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
  else element.replaceChildren(...withTelephones(text));
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return value.toLocaleString(language);
  if (typeof value !== "object") return String(value);
  if ("wait" in value) return duration(value.wait);
  if ("date" in value) return new Intl.DateTimeFormat(language, { dateStyle: "long", timeZone: "UTC" }).format(new Date(value.date));
  return moment(new Date(value.at * 1000));
}

function duration(seconds) {
  const s = Math.max(1, Math.ceil(seconds));
  if (s < 120) return counted(s, "second");
  if (s < 7200) return counted(Math.ceil(s / 60), "minute");
  return counted(Math.ceil(s / 3600), "hour");
}

const counted = (n, unit) => n.toLocaleString(language, { style: "unit", unit, unitDisplay: "long" });

function moment(date) {
  const today = new Date().toDateString() === date.toDateString();
  return new Intl.DateTimeFormat(language, today ? { timeStyle: "short" } : { dateStyle: "medium" }).format(date);
}
