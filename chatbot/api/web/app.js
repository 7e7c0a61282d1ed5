// The customers' page: connects its parts, signs in, and opens the conversation in the address.

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
let views = 0; // the number of views that the customer has opened: a late reply for an earlier view is dropped

const atProvider = signsInAtProvider();
const api = new Api(atProvider ? null : customerName());
const announcer = new Announcer(byId("announcements"));
const scroll = new LogScroll(byId("log"), byId("messages"), byId("latest"));
const panel = new PassagePanel(byId("passage"), (answerId, n) => api.source(answerId, n));

const chat = new Chat({
  api,
  announcer,
  messages: byId("messages"),
  answerMode: () => byId("way").value,
  openPassage: (passage) => panel.open(passage),
  hooks: {
    busy: (busy) => (composer.busy = busy),
    began: (id) => markCurrent(id),
    ended: () => list.refresh(chat.conversationId),
    asked: () => {
      views += 1;
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
  const id = idInAddress();
  if (id !== chat.conversationId) void (id ? open(id) : startNew());
});

await begin();

/** Sign in and open the conversation in the address. */
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
  if (matchMedia("(hover: hover)").matches) composer.focus(); // on a phone the keyboard would cover the welcome text
  const view = views;
  await list.refresh(null);
  if (idInAddress() && view === views) await open(idInAddress());
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
  views += 1;
  const view = views;
  panel.close();
  try {
    const conversation = await api.conversation(id);
    if (view !== views) return; // the customer has opened another view since
    chat.show(conversation);
  } catch (error) {
    if (view !== views) return;
    if (error instanceof TokenNeeded) return askForToken();
    chat.clear();
    showTrouble(error, () => open(id));
  }
  byId("examples").hidden = true;
  markCurrent(chat.conversationId);
  scroll.toQuestion();
  byId("conversation-title").focus({ preventScroll: true });
}

function startNew() {
  views += 1;
  panel.close();
  chat.clear();
  byId("examples").hidden = false;
  markCurrent(null);
  scroll.toStart();
  composer.focus();
}

/** Mark the shown conversation in the list, and put its id into the address for a reload. */
function markCurrent(id) {
  list.mark(id);
  history.replaceState(null, "", id ? `#${id}` : location.pathname);
}

/** Return the conversation's id in the address, or null. */
function idInAddress() {
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

/** Return this browser's customer name at the demo bank: each browser has its own history. */
function customerName() {
  const storedName = remembered(CUSTOMER);
  if (storedName) return storedName;
  const newName = `guest-${crypto.getRandomValues(new Uint32Array(1))[0].toString(16)}`;
  remember(CUSTOMER, newName);
  return newName;
}
