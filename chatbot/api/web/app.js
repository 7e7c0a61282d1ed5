// The customers' page: puts its parts together, signs in, and opens the conversation that the address names.

import { Announcer } from "./announcer.js";
import { Problem, TokenNeeded } from "./api.js";
import { BANK } from "./bank.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { ConversationList } from "./conversation_list.js";
import { Api } from "./customer_api.js";
import { byId, el } from "./dom.js";
import { preferredLanguage, remember, remembered, say, setLanguage, t } from "./i18n.js";
import { PassagePanel } from "./passage_panel.js";
import { LogScroll } from "./scroll.js";
import { badEnding, signOutEverywhere, signsInAtProvider, wireSignIn } from "./session.js";
import { troubleView } from "./trouble_box.js";

const CUSTOMER = "bank.customer";

let signedIn = false;
let shown = 0; // counts what the customer wanted to see, so that a late reply does not take its place

const atProvider = signsInAtProvider();
const api = new Api(atProvider ? null : customerName());
const announcer = new Announcer(byId("announcements"));
const scroll = new LogScroll(byId("log"), byId("messages"), byId("latest"));
const panel = new PassagePanel(byId("passage"), (answerId, n) => api.source(answerId, n));

const chat = new Chat({
  api,
  announcer,
  messages: byId("messages"),
  way: () => byId("way").value,
  openPassage: (what) => panel.open(what),
  hooks: {
    busy: (busy) => (composer.busy = busy),
    began: (id) => named(id),
    ended: () => list.refresh(chat.conversationId),
    asked: () => {
      shown += 1;
      byId("examples").hidden = true;
      scroll.toQuestion();
    },
    startOver: (text) => {
      startNew();
      composer.putBack(text);
    },
    tokenNeeded: (text) => {
      askForToken();
      composer.putBack(text);
    },
  },
});

const composer = new Composer({ send: (text) => chat.ask(text), stop: () => chat.stop() });
const list = new ConversationList(api, {
  open: (id) => open(id),
  startNew: () => startNew(),
  deleted: (id) => {
    announcer.announce(t("deleted"));
    if (id === chat.conversationId) startNew();
  },
  failed: (error) => {
    if (error instanceof TokenNeeded) askForToken();
    else announcer.announce(t("delete_failed"));
  },
});

chooseLanguage(preferredLanguage());
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => chooseLanguage(button.dataset.language));
}
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  enterToken(byId("token").value.trim());
});
byId("provider").hidden = !atProvider;
byId("by-token").hidden = atProvider;
wireSignIn(byId("sign-in-link"));
byId("sign-out").addEventListener("click", async () => {
  try {
    await signOutEverywhere();
    composer.fill("");
  } catch {
    announcer.announce(say(byId("who-name"), "sign_out_failed").textContent);
  }
});
addEventListener("hashchange", () => {
  const id = addressed();
  if (id !== chat.conversationId) void (id ? open(id) : startNew());
});

await begin();

/** Sign in and show what the address names. */
async function begin() {
  byId("messages").replaceChildren();
  try {
    const { name, person } = await api.signIn();
    byId("who").hidden = name === null;
    byId("ways").hidden = !api.demo;
    if (name !== null) say(byId("who-name"), "signed_in", { name });
    composer.resume(person);
  } catch (error) {
    if (!(error instanceof TokenNeeded)) return showTrouble(error, begin);
    askForToken();
    const ending = badEnding();
    if (ending) say(byId("sign-in-problem"), ending);
    return;
  }
  await enter();
}

async function enter() {
  signedIn = true;
  byId("ask").hidden = false;
  byId("sign-in").hidden = true;
  byId("examples").hidden = byId("messages").hasChildNodes();
  if (matchMedia("(hover: hover)").matches) composer.focus(); // on a phone the keyboard would cover what is said first
  const before = shown;
  await list.refresh(null);
  if (addressed() && before === shown) await open(addressed());
}

function askForToken() {
  signedIn = false;
  byId("ask").hidden = true;
  byId("sign-in").hidden = false;
  byId("examples").hidden = true;
  byId("who").hidden = true;
  byId(atProvider ? "sign-in-link" : "token").focus();
}

async function enterToken(token) {
  byId("token-problem").textContent = "";
  api.useToken(token);
  try {
    await api.conversations(null);
  } catch (error) {
    say(byId("token-problem"), error instanceof TokenNeeded || error instanceof Problem ? "token_refused" : "sign_in_failed");
    byId("token").select();
    return;
  }
  byId("token").value = "";
  await enter();
}

async function open(id) {
  const mine = ++shown;
  panel.close();
  try {
    const conversation = await api.conversation(id);
    if (mine !== shown) return; // the customer went on meanwhile
    chat.show(conversation);
  } catch (error) {
    if (mine !== shown) return;
    if (error instanceof TokenNeeded) return askForToken();
    chat.clear();
    showTrouble(error, () => open(id));
  }
  byId("examples").hidden = true;
  named(chat.conversationId);
  scroll.toQuestion();
  byId("conversation-title").focus({ preventScroll: true });
}

function startNew() {
  shown += 1;
  panel.close();
  chat.clear();
  byId("examples").hidden = false;
  named(null);
  scroll.toStart();
  composer.focus();
}

/** The conversation shown is `id`: mark it and put it into the address, so that a reload finds it again. */
function named(id) {
  list.mark(id);
  history.replaceState(null, "", id ? `#${id}` : location.pathname);
}

/** Return the conversation that the address names, if it does. */
function addressed() {
  return /^#[0-9a-f]{32}$/.test(location.hash) ? location.hash.slice(1) : null;
}

function showTrouble(error, retry) {
  const box = troubleView(error, { retry, startOver: startNew });
  box.setAttribute("role", "alert");
  byId("messages").replaceChildren(box);
}

function chooseLanguage(language) {
  setLanguage(language);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
  for (const element of document.querySelectorAll("[data-bank-name]")) element.textContent = BANK.names[language];
  const questions = BANK.questions[language];
  byId("examples-title").hidden = questions.length === 0;
  byId("example-list").replaceChildren(...questions.map((text) => el("li", {}, exampleButton(text))));
}

function exampleButton(text) {
  const onclick = () => {
    composer.focus();
    if (signedIn) chat.ask(text);
    else composer.fill(text);
  };
  return el("button", { type: "button", class: "secondary", onclick }, text);
}

/** Return this browser's customer of the demo bank, so that everybody has a history of their own. */
function customerName() {
  const known = remembered(CUSTOMER);
  if (known) return known;
  const fresh = `guest-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
  remember(CUSTOMER, fresh);
  return fresh;
}
