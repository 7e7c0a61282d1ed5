// The staff page: puts its views together, signs in, and shows the one that the address names.

import { Announcer } from "./announcer.js";
import { TokenNeeded } from "./api.js";
import { wireConfirm } from "./confirm.js";
import { isApprover } from "./decisions.js";
import { DocumentView } from "./document_view.js";
import { DocumentsView } from "./documents_view.js";
import { byId, el } from "./dom.js";
import { preferredLanguage, say, setLanguage, setZone } from "./i18n.js";
import { JobsView } from "./jobs_view.js";
import { QueueView } from "./queue_view.js";
import { ReviewView } from "./review_view.js";
import { Api } from "./staff_api.js";
import { badEnding, signOutEverywhere, signsInAtProvider, wireSignIn } from "./session.js";
import { TestView } from "./test_view.js";
import { troubleLine } from "./trouble_line.js";
import { UploadView } from "./upload_view.js";

const atProvider = signsInAtProvider();

/**
 * What every view may use; `onTokenNeeded` asks for a token where an error says that this person's is missing, `count`
 * shows in the tabs how much waits now, and the next view that is opened shows what is in `said`.
 */
const page = {
  api: new Api(),
  announcer: new Announcer(byId("announcements")),
  me: null,
  lanes: null,
  said: [],
  count,
  onTokenNeeded: (error) => error instanceof TokenNeeded && error.signIn === page.api.signIn && page.me !== null && signOut(error),
};
const upload = new UploadView(page);
page.lanes = upload.lanes;
const views = {
  upload,
  queue: new QueueView(page),
  documents: new DocumentsView(page),
  document: new DocumentView(page, (file, fields, list) => upload.send(file, fields, list)),
  review: new ReviewView(page),
  jobs: new JobsView(page),
  test: new TestView(page),
};

let owner = null; // whose files the upload view holds
let opened = 0; // counts the views, so that a late error is not told over another one

wireConfirm();
chooseLanguage(preferredLanguage());
for (const button of document.querySelectorAll("[data-language]")) {
  button.addEventListener("click", () => chooseLanguage(button.dataset.language));
}
byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  void signIn(() => byId("token").value.trim());
});
for (const button of document.querySelectorAll("#demo button")) {
  button.addEventListener("click", () => void signIn(() => page.api.demoToken(button.dataset.role)));
}
byId("sign-out").addEventListener("click", () => (atProvider ? void leave() : signOut(null)));
addEventListener("hashchange", () => void open());
byId("demo").hidden = byId("demo").dataset.demo === "";
byId("provider").hidden = !atProvider;
byId("by-token").hidden = atProvider;
wireSignIn(byId("sign-in-link"));
firstField().focus();
if (atProvider) void resume();

/** Go on with the session of who has signed in at the provider; say how the sign-in ended where nobody has. */
async function resume() {
  const ending = badEnding();
  let name = null;
  try {
    name = await page.api.signedIn();
  } catch (error) {
    byId("sign-in-problem").replaceChildren(troubleLine(error));
    return;
  }
  if (name !== null) {
    say(byId("who-name"), "signed_in", { name });
    byId("who").hidden = false; // also where this role may do nothing here: somebody else may come
    await signIn(() => null, name);
  } else if (ending) byId("sign-in-problem").replaceChildren(say(el("p", { class: "problem", role: "alert" }), ending));
}

async function leave() {
  try {
    await signOutEverywhere();
  } catch {
    byId("view-problem").replaceChildren(say(el("p", { class: "problem", role: "alert" }), "sign_out_failed"));
  }
}

async function signIn(obtainToken, name = null) {
  byId("sign-in-problem").replaceChildren();
  try {
    page.api.useToken(await obtainToken());
    page.me = await page.api.me();
  } catch (error) {
    byId("sign-in-problem").replaceChildren(troubleLine(error));
    byId("token").select();
    return;
  }
  byId("token").value = "";
  setZone(page.me.zone);
  const person = JSON.stringify([page.me.tenant, page.me.sub]);
  if (person !== owner) upload.clear();
  owner = person;
  if (name === null) say(byId("who-name"), "signed_in", { name: page.me.sub });
  inside(true);
  await open();
}

/** Leave; with an `error`, since the token or session is over: then the rows of files stay for who comes back. */
function signOut(error) {
  page.me = null;
  page.api.useToken(null);
  if (error) upload.pause(error);
  else {
    upload.clear();
    history.replaceState(null, "", location.pathname); // who enters next begins with what is theirs to do
  }
  for (const view of Object.values(views)) if (view !== upload) view.clear?.();
  for (const section of document.querySelectorAll("main > section")) section.hidden = true;
  inside(false);
  byId("sign-in-problem").replaceChildren(...(error ? [troubleLine(error)] : []));
  firstField().focus();
}

/** Return what somebody who is not signed in uses first. */
function firstField() {
  if (!byId("demo").hidden) return byId("demo").querySelector("button");
  return byId(atProvider ? "sign-in-link" : "token");
}

function inside(isInside) {
  byId("sign-in").hidden = isInside;
  byId("who").hidden = !isInside;
  byId("views").hidden = !isInside;
}

/** Show the view that the address names: `#/review/term-deposit/2`. */
async function open() {
  if (page.me === null) return;
  const mine = ++opened;
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const shown = name in views ? name : isApprover(page.me) ? "queue" : "upload";
  byId("view-problem").replaceChildren();
  byId("view-said").replaceChildren(...page.said.splice(0));
  void count();
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== shown;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === shown) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId(shown).querySelector("h2").focus({ preventScroll: true });
  scrollTo(0, 0);
  try {
    await views[shown].show(...parts);
  } catch (error) {
    if (mine === opened) byId("view-problem").replaceChildren(troubleLine(error));
    page.onTokenNeeded(error);
  }
}

async function count() {
  const counts = await page.api.counts().catch(() => ({})); // the view says what is wrong
  for (const place of document.querySelectorAll("[data-count]")) place.textContent = counts[place.dataset.count] || "";
}

function chooseLanguage(language) {
  setLanguage(language);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}
