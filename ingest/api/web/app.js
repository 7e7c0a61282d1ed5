// The staff page: creates the views, signs the person in, and shows the view that the address names.

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
 * The objects that views share. `onTokenNeeded(error)` signs the person out if the error says that their token is no
 * longer valid. `updateCounts()` updates the numbers in the tabs. The next view that opens shows `messages`.
 */
const page = {
  api: new Api(),
  announcer: new Announcer(byId("announcements")),
  me: null,
  lanes: null,
  messages: [],
  updateCounts,
  onTokenNeeded: (error) => {
    const isOfThisPerson = error instanceof TokenNeeded && error.signIn === page.api.signIn;
    if (isOfThisPerson && page.me !== null) signOut(error);
  },
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

let owner = null; // the person whose files are in the upload view
let openCount = 0; // of views, so that a late error is not shown in another view

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
byId("sign-out").addEventListener("click", () => (atProvider ? void signOutAtProvider() : signOut(null)));
addEventListener("hashchange", () => void open());
byId("demo").hidden = byId("demo").dataset.demo === "";
byId("provider").hidden = !atProvider;
byId("by-token").hidden = atProvider;
wireSignIn(byId("sign-in-link"));
firstField().focus();
if (atProvider) void resume();

/** Continue the session of the person who has signed in at the provider; without one, show why the sign-in failed. */
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
    byId("who").hidden = false; // also without a role here, so that the person can sign out
    await signIn(() => null, name);
  } else if (ending) byId("sign-in-problem").replaceChildren(say(el("p", { class: "problem", role: "alert" }), ending));
}

async function signOutAtProvider() {
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
  showSignedIn(true);
  await open();
}

/** Sign the person out. With an `error` (the token or session has ended), the rows of files stay for their return. */
function signOut(error) {
  page.me = null;
  page.api.useToken(null);
  if (error) upload.pause(error);
  else {
    upload.clear();
    history.replaceState(null, "", location.pathname); // the next person begins with the view of their role
  }
  for (const view of Object.values(views)) if (view !== upload) view.clear?.();
  for (const section of document.querySelectorAll("main > section")) section.hidden = true;
  showSignedIn(false);
  byId("sign-in-problem").replaceChildren(...(error ? [troubleLine(error)] : []));
  firstField().focus();
}

/** Return the first field of the sign-in. */
function firstField() {
  if (!byId("demo").hidden) return byId("demo").querySelector("button");
  return byId(atProvider ? "sign-in-link" : "token");
}

function showSignedIn(isSignedIn) {
  byId("sign-in").hidden = isSignedIn;
  byId("who").hidden = !isSignedIn;
  byId("views").hidden = !isSignedIn;
}

/** Show the view that the address names: `#/review/term-deposit/2`. */
async function open() {
  if (page.me === null) return;
  const number = ++openCount;
  const [name, ...parts] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const startView = isApprover(page.me) ? "queue" : "upload";
  const shown = name in views ? name : startView;
  byId("view-problem").replaceChildren();
  byId("view-said").replaceChildren(...page.messages.splice(0));
  void updateCounts();
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
    if (number === openCount) byId("view-problem").replaceChildren(troubleLine(error));
    page.onTokenNeeded(error);
  }
}

async function updateCounts() {
  const counts = await page.api.counts().catch(() => ({})); // the view shows the error
  for (const tab of document.querySelectorAll("[data-count]")) tab.textContent = counts[tab.dataset.count] || "";
}

function chooseLanguage(language) {
  setLanguage(language);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}
