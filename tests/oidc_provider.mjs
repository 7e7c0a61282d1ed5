// A certified OpenID Connect provider (npm oidc-provider) on loopback, for tests: whoever is named in its form is signed in.
// node oidc_provider.mjs <folder with node_modules> <JSON: {port, jwks, clients, people: {name: claims}, seconds, sid}>
// `/test/…` is for the tests alone.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const found = createRequire(join(process.argv[2], "package.json")).resolve("oidc-provider");
const { Provider } = await import(pathToFileURL(found));
const given = JSON.parse(process.argv[3]);
const issuer = `http://localhost:${given.port}`;
const AUDIENCES = { "urn:bank": "bank-chatbot", "urn:other": "another-api", "urn:client": "bank-pages" };
const PAGE = '<!doctype html><html lang="en"><title>Provider</title><link rel="icon" href="data:,">';
const FORM = `${PAGE}<form method="post"><label>Who <input name="who" autofocus></label><button>Sign in</button></form>`;
const CONFIRM = '<button form="op.logoutForm" name="logout" value="yes" autofocus>Sign out</button>';
let seconds = given.seconds;
let renewed = 0;

const provider = new Provider(issuer, {
  jwks: given.jwks,
  clients: given.clients,
  cookies: { keys: ["of the tests"] },
  claims: { openid: ["sub", "name", ...(given.sid ? ["sid"] : [])] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async () => true,
  findAccount: (_, id) => (id in given.people ? { accountId: id, claims: () => ({ sub: id, name: `${id} ${id}` }) } : undefined),
  extraTokenClaims: (_, token) => given.people[token.accountId],
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // the usual one connects to no loopback
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const { client, session } = ctx.oidc;
    const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope("openid");
    for (const resource of Object.keys(AUDIENCES)) grant.addResourceScope(resource, "chat");
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true, logoutSource: (ctx, form) => (ctx.body = `${PAGE}${form}${CONFIRM}`) },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:bank",
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: "chat",
        audience: AUDIENCES[resource],
        accessTokenFormat: "jwt",
        accessTokenTTL: seconds,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});
provider.on("grant.success", (ctx) => (renewed += ctx.oidc.params.grant_type === "refresh_token"));
for (const event of ["server_error", "grant.error", "authorization.error", "backchannel.error", "end_session.error"]) {
  provider.on(event, (_, error) => console.error(event, error.message, error.cause ?? error.error_description ?? ""));
}

const answer = provider.callback();

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, issuer);
  if (pathname === "/test/renewed") return response.end(String(renewed));
  if (pathname === "/test/seconds") return response.end(String((seconds = Number(searchParams.get("are")))));
  if (!pathname.startsWith("/interaction/")) return answer(request, response);
  if (request.method === "GET") return response.setHeader("content-type", "text/html").end(FORM);
  let body = "";
  for await (const chunk of request) body += chunk;
  const login = { accountId: new URLSearchParams(body).get("who") };
  await provider.interactionFinished(request, response, { login });
}).listen(given.port, "127.0.0.1", () => console.log(issuer));
