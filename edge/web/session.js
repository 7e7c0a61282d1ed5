// The session of who has signed in at the bank's identity provider; its cookie goes with every call, and no script reads it.

import { byId } from "./dom.js";

const ENDINGS = { refused: "sign_in_refused", unavailable: "sign_in_unavailable" };

let wayOut = null; // known once: who then stays is no longer known here when they leave after all

/** Return whether people sign in at a provider here; without one they bring a token. */
export const signsInAtProvider = () => byId("provider").dataset.signIn !== "";

/** Return the text for the end of a sign-in from which the browser has just come back, if that was no good one; once. */
export function badEnding() {
  const said = new URLSearchParams(location.search).get("sign-in");
  if (said !== null) history.replaceState(null, "", location.pathname + location.hash);
  return ENDINGS[said] ?? null;
}

/** Let the link lead to the provider, and from there to where the page is now. */
export function wireSignIn(link) {
  link.addEventListener("click", () => (link.href = `/oidc/sign-in?place=${encodeURIComponent(location.hash.slice(1))}`));
}

/** End the session here, and go where it is ended at the provider; throw where it could not be ended. */
export async function signOutEverywhere() {
  const response = await fetch("/oidc/sign-out", { method: "POST" });
  if (!response.ok) throw new Error(`not signed out: ${response.status}`);
  const { go_to: place } = await response.json();
  // Browsers keep the page as it is for "Back": nobody may find there what was shown. Not before it is left: who is asked
  // about uploads that are under way may stay.
  addEventListener("pagehide", () => (document.body.hidden = true));
  addEventListener("pageshow", () => location.reload());
  wayOut ??= place;
  location.assign(wayOut);
}
