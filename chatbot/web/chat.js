// The conversation that is shown: asks, follows the answer, stops it, shows an earlier conversation.

import { ConnectionLost, TokenNeeded } from "./api.js";
import { followAnswer } from "./answer_stream.js";
import { AnswerView, questionView } from "./answer_view.js";
import { newestBranch } from "./branch.js";
import { t } from "./i18n.js";
import { troubleOf, troubleView } from "./trouble.js";

export class Chat {
  #api;
  #messages;
  #announcer;
  #openPassage;
  #hooks;
  #running = null;
  #lastId = null;

  conversationId = null;

  /** `hooks` are `busy(boolean)`, `began(conversationId)`, `ended()`, `asked()`, `startOver(text)`, `tokenNeeded(text)`. */
  constructor({ api, messages, announcer, openPassage, hooks }) {
    this.#api = api;
    this.#messages = messages;
    this.#announcer = announcer;
    this.#openPassage = openPassage;
    this.#hooks = hooks;
  }

  /** Ask `text` in this conversation and show the answer as it comes. */
  async ask(text) {
    const question = questionView(text);
    this.#messages.append(question);
    this.#hooks.asked();
    await this.#answer({ text, question, parentId: null, before: this.#lastId, key: randomKey() });
  }

  /** Stop the running answer; what was shown stays. */
  async stop() {
    const running = this.#running;
    if (!running || running.stopping) return;
    running.stopping = true;
    running.view.wait("stopping");
    if (running.view.answerId) await this.#cancel(running);
    // Not accepted yet: it is cancelled as soon as it has a name.
  }

  /** Leave this conversation for an empty one. */
  clear() {
    const running = this.#running;
    if (running) {
      this.#running = null;
      if (running.view.answerId) this.#api.cancel(running.view.answerId).catch(() => {}); // unread, it ends by itself
      running.abort.abort();
      this.#hooks.busy(false);
    }
    this.conversationId = null;
    this.#lastId = null;
    this.#messages.replaceChildren();
  }

  /** Show an earlier conversation. */
  show({ id, messages }) {
    this.clear();
    this.conversationId = id;
    const branch = newestBranch(messages);
    this.#lastId = branch.at(-1)?.id ?? null;
    branch.forEach((message, n) => {
      this.#messages.append(message.role === "user" ? questionView(message.text, message.at) : this.#past(message));
      if (message.role === "user" && branch[n + 1]?.role !== "assistant") this.#messages.append(this.#unanswered());
    });
  }

  #past({ answer_id: answerId, text, sources = [], citations = [], finish_reason: reason }) {
    const view = new AnswerView(this.#openPassage);
    view.answerId = answerId;
    view.sources(sources);
    view.append(text);
    citations.forEach((citation) => view.cite(citation));
    view.finish(reason ?? "stop");
    return view.element;
  }

  #unanswered() {
    const view = new AnswerView(this.#openPassage);
    view.finish("missing");
    return view.element;
  }

  async #answer(turn) {
    const view = new AnswerView(this.#openPassage);
    turn.question.after(view.element);
    const running = { view, turn, abort: new AbortController(), stopping: false, ended: false };
    this.#running = running;
    this.#hooks.busy(true);
    this.#announcer.begin();
    view.wait("searching");
    this.#announcer.announce(t("searching"));
    try {
      for await (const event of this.#events(running)) if (this.#running === running) this.#take(event, running);
      if (!running.ended) this.#failed({ type: "error", code: "log_lost" }, running);
    } catch (error) {
      if (this.#running === running) this.#failed(error, running);
    }
    if (this.#running !== running) return; // the customer has gone to another conversation
    this.#running = null;
    this.#hooks.busy(false);
    this.#hooks.ended();
  }

  #events({ turn, view, abort }) {
    const question = { message: turn.text };
    if (this.conversationId) question.conversation_id = this.conversationId;
    if (turn.parentId) question.parent_id = turn.parentId;
    return followAnswer({
      ask: () => this.#api.ask(question, turn.key, abort.signal),
      resume: (answerId, lastId) => this.#api.resume(answerId, lastId, abort.signal),
      signal: abort.signal,
    });
  }

  #take(event, running) {
    const { view } = running;
    const take = {
      accepted: () => this.#accepted(event, running),
      queued: () => view.wait(...queueText(event)),
      sources: () => view.sources(event.items),
      token: () => this.#grew(event.text, running),
      citation: () => view.cite(event),
      notice: () => this.#noticed(event, view),
      done: () => this.#done(event, running),
      error: () => this.#failed(event, running),
      reconnecting: () => view.wait("reconnecting", { attempt: event.attempt }),
    }[event.type];
    take?.(); // events of a later server are none of this page's business
    if (running.stopping && !running.ended) view.wait("stopping");
    else if (running.lost && event.type !== "reconnecting" && !running.ended) view.wait("checking");
    running.lost = event.type === "reconnecting";
  }

  #accepted({ answer_id: answerId, conversation_id: conversationId }, running) {
    const isNew = this.conversationId !== conversationId;
    running.view.answerId = answerId;
    running.view.wait("checking");
    this.conversationId = conversationId;
    this.#lastId = answerId; // an answer's message bears its answer's id
    if (isNew) this.#hooks.began(conversationId);
    if (running.stopping) this.#cancel(running);
  }

  #grew(text, { view }) {
    view.append(text);
    view.wait("checking");
    this.#announcer.follow(view.text);
  }

  #noticed(notice, view) {
    view.notice(notice);
    this.#announcer.announce(`${t("notice")}: ${notice.text}`);
  }

  #done({ finish_reason: reason, grounded }, running) {
    running.ended = true;
    this.#announcer.follow(running.view.text, { ended: true });
    running.view.finish(reason, { grounded });
    const count = running.view.citedCount;
    const said = { stop: count ? "done_read_cited" : "done_read" }[reason] ?? `end_${reason}`;
    this.#announcer.announce(t(said, { count }));
  }

  #failed(error, running) {
    running.ended = true;
    const { view, turn } = running;
    if (error instanceof TokenNeeded) {
      turn.question.remove();
      view.element.remove();
      this.#hooks.tokenNeeded(turn.text);
      return;
    }
    const trouble = troubleOf(error);
    const box = troubleView(trouble, {
      retry: () => this.#again(running, error),
      startOver: () => this.#hooks.startOver(turn.text),
    });
    view.fail(box);
    this.#announcer.announce(t(trouble.said));
  }

  /** Ask the same again. A refusal does not bind the key and a lost request may be joined; a failed answer needs a new key. */
  #again({ view, turn }, error) {
    if (this.#running) return;
    const begun = error?.type === "error";
    view.element.remove();
    this.#answer({ ...turn, parentId: begun ? turn.before : turn.parentId, key: begun ? randomKey() : turn.key });
  }

  async #cancel(running) {
    try {
      await this.#api.cancel(running.view.answerId);
    } catch (error) {
      if (this.#running !== running || running.ended) return;
      // Unread, it ends by itself on the server.
      running.abort.abort();
      if (error instanceof ConnectionLost) this.#done({ finish_reason: "cancelled" }, running);
    }
  }
}

function queueText({ position, estimated_wait_ms: milliseconds }) {
  const wait = { wait: milliseconds / 1000 };
  return position > 1 ? ["queued", { ahead: position - 1, wait }] : ["queued_next", { wait }];
}

/** Return a fresh Idempotency-Key (randomUUID exists only on secure origins). */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
