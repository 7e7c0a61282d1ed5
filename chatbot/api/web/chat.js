// The conversation that is shown: asks, follows the answer, stops it, shows an earlier conversation and what still runs in it.

import { Problem, TokenNeeded } from "./api.js";
import { followAnswer } from "./answer_stream.js";
import { actionsView, turnsView } from "./answer_actions.js";
import { AnswerView, isCutShort, noticesFor, questionView, showUnderstanding } from "./answer_view.js";
import { branchThrough, branchTo, newestBranch, openQuestion, siblingsOf } from "./branch.js";
import { t } from "./i18n.js";
import { troubleOf } from "./trouble.js";
import { troubleView } from "./trouble_box.js";

const STOP_MS = 5_000; // for the server's word that it has stopped

export class Chat {
  #api;
  #messages;
  #way;
  #announcer;
  #openPassage;
  #hooks;
  #running = null;
  #lastId = null;

  conversationId = null;

  /** `hooks` are `busy(boolean)`, `began(conversationId)`, `ended()`, `asked()`, `startOver(text)`, `tokenNeeded(text)`. */
  constructor({ api, messages, way, announcer, openPassage, hooks }) {
    this.#api = api;
    this.#messages = messages;
    this.#way = way;
    this.#announcer = announcer;
    this.#openPassage = openPassage;
    this.#hooks = hooks;
  }

  /** Ask `text` in this conversation and show the answer as it comes. */
  async ask(text) {
    const question = questionView(text);
    this.#messages.append(question);
    this.#hooks.asked();
    const { conversationId } = this; // a repeated request must be the same, also once it has opened a conversation
    await this.#answer({ text, question, conversationId, parentId: this.#lastId, way: this.#way(), again: null, siblings: [], key: randomKey() });
  }

  /** Answer the question before `view` once more, in its place; what was said after it belongs to the other branch. */
  async #regenerate({ view, text, siblings }) {
    if (this.#running) return;
    const question = view.element.previousElementSibling;
    while (question.nextElementSibling) question.nextElementSibling.remove();
    this.#hooks.asked();
    await this.#answer({ text, question, parentId: null, again: view.answerId, siblings, key: randomKey() });
  }

  /** Stop the running answer; what was shown stays. */
  async stop() {
    const running = this.#running;
    if (!running || running.stopping) return;
    running.stopping = true;
    running.view.wait("stopping");
    setTimeout(() => this.#giveUp(running), STOP_MS);
    if (running.view.answerId) await this.#cancel(running);
    // Not accepted yet: it is cancelled as soon as it has a name.
  }

  /** Leave this conversation for an empty one; its running answer goes on for who comes back, and unread it ends by itself. */
  clear() {
    const running = this.#running;
    if (running) {
      this.#running = null;
      running.abort.abort();
      this.#hooks.busy(false);
    }
    this.conversationId = null;
    this.#lastId = null;
    this.#messages.replaceChildren();
  }

  /**
   * Show an earlier conversation: the newest branch, or the newest one that holds the message `through`. An answer that
   * still runs, asked for before a reload or on another device, is followed, unless there is `nothingOpen`.
   */
  show(conversation, { through = null, nothingOpen = false } = {}) {
    const { id, messages } = conversation;
    this.clear();
    this.conversationId = id;
    const open = through || nothingOpen ? null : openQuestion(messages);
    if (open) return this.#follow(conversation, open);
    const branch = through ? branchThrough(messages, through) : newestBranch(messages);
    this.#append(messages, branch);
    if (branch.at(-1)?.role === "user") this.#messages.append(this.#unanswered());
  }

  #follow(conversation, { id, text, parent_id: parentId, answered_by: resume }) {
    const { messages } = conversation;
    this.#append(messages, branchTo(messages, id));
    const siblings = siblingsOf(messages, { role: "assistant", parent_id: id });
    const missing = () => this.show(conversation, { nothingOpen: true });
    this.#answer({ text, question: this.#messages.lastElementChild, parentId, siblings, resume, missing });
  }

  #append(messages, branch) {
    this.#lastId = branch.findLast(({ role }) => role === "assistant")?.id ?? null;
    branch.forEach((message, n) => {
      const siblings = siblingsOf(messages, message);
      const asked = branch[n - 1]?.text ?? "";
      this.#messages.append(message.role === "user" ? this.#asked(message, siblings) : this.#past(message, asked, siblings));
    });
  }

  #asked({ id, text, at, standalone }, siblings) {
    const question = questionView(text, at, this.#turns(siblings, id));
    showUnderstanding(question, standalone);
    return question;
  }

  #past(message, asked, siblings) {
    const { answer_id: answerId, text, sources = [], citations = [], related = [], notices = [], grounded, feedback } = message;
    const view = new AnswerView(this.#openPassage);
    view.answerId = answerId;
    noticesFor(notices, message.finish_reason).forEach((notice) => view.notice(notice));
    view.sources(sources);
    view.append(text);
    citations.forEach((citation) => view.cite(citation));
    view.relate(related);
    view.finish(message.finish_reason ?? "stop", { grounded });
    this.#offer(view, asked, siblings, feedback);
    return view.element;
  }

  #offer(view, text, siblings, feedback = null) {
    const regenerate = () => this.#regenerate({ view, text, siblings });
    const rate = (said) => this.#rate(view.answerId, said);
    const copy = navigator.clipboard ? () => this.#copy(view) : null; // only on secure origins
    view.offer(actionsView({ feedback, regenerate, rate, copy, turns: this.#turns(siblings, view.answerId) }));
    view.suggest((question) => this.#running || this.ask(question));
  }

  #turns(siblings, id) {
    return turnsView(siblings, id, (to, step) => this.#turnTo(to, step));
  }

  /** Show the branch of the message `id`, and leave the focus on the switch. */
  async #turnTo(id, step) {
    if (this.#running) return;
    const from = this.conversationId;
    try {
      const conversation = await this.#api.conversation(from);
      if (this.#running || this.conversationId !== from) return; // the customer went on meanwhile
      this.show(conversation, { through: id });
    } catch (error) {
      this.#announcer.announce(t(troubleOf(error).key));
      return;
    }
    const steps = [...this.#messages.querySelectorAll(`[data-step="${step}"]`)];
    const target = steps.find((button) => button.closest(".turns").dataset.shown === id) ?? steps.at(-1);
    const enabled = target?.disabled ? target.parentElement.querySelector("button:enabled") : target;
    enabled?.focus();
  }

  /** Put an answer into the clipboard; return whether it is there. */
  async #copy(view) {
    const copied = await navigator.clipboard.writeText(view.plainText).then(() => true, () => false);
    this.#announcer.announce(t(copied ? "copied" : "copy_failed"));
    return copied;
  }

  /** Keep what the customer thinks of an answer; return whether it is kept. */
  async #rate(answerId, said) {
    try {
      await this.#api.rate(answerId, said);
    } catch {
      this.#announcer.announce(t("rate_failed"));
      return false;
    }
    this.#announcer.announce(t("rated"));
    return true;
  }

  #unanswered() {
    const view = new AnswerView(this.#openPassage);
    view.finish("missing");
    return view.element;
  }

  async #answer(turn) {
    const view = new AnswerView(this.#openPassage);
    const pressed = turn.again || this.#messages.contains(document.activeElement);
    turn.question.after(view.element);
    if (pressed) view.focus(); // the button that was pressed is gone
    const running = { view, turn, abort: new AbortController(), stopping: false, ended: false, held: [] };
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
    if (this.#running === running) this.#rest(); // else the customer has gone to another conversation, or given up
  }

  #rest() {
    this.#running = null;
    this.#hooks.busy(false);
    this.#hooks.ended();
  }

  #events({ turn, view, abort }) {
    const question = { message: turn.text };
    if (turn.conversationId) question.conversation_id = turn.conversationId;
    if (turn.parentId) question.parent_id = turn.parentId;
    if (turn.way) question.answer = turn.way;
    return followAnswer({
      ask: () => {
        if (turn.resume) return this.#api.resume(turn.resume, "", abort.signal);
        if (turn.again) return this.#api.regenerate(turn.again, turn.key, abort.signal);
        return this.#api.ask(question, turn.key, abort.signal);
      },
      resume: (answerId, lastId) => this.#api.resume(answerId, lastId, abort.signal),
      signal: abort.signal,
    });
  }

  #take(event, running) {
    const { view } = running;
    const take = {
      accepted: () => this.#accepted(event, running),
      queued: () => view.wait(...queueText(event)),
      sources: () => this.#found(event.items, running),
      token: () => this.#grew(event.text, running),
      citation: () => view.cite(event),
      related: () => view.relate(event.items),
      notice: () => this.#noticed(event, running),
      done: () => this.#done(event, running),
      error: () => this.#failed(event, running),
      reconnecting: () => view.wait("reconnecting", { attempt: event.attempt }),
    }[event.type];
    take?.(); // events of a later server are none of this page's business
    if (running.stopping && !running.ended) view.wait("stopping");
    else if (running.lost && event.type !== "reconnecting" && !running.ended) view.wait(view.text ? "checking" : "reading");
    running.lost = event.type === "reconnecting";
  }

  #accepted({ answer_id: answerId, conversation_id: conversationId, understood_as: understoodAs }, running) {
    const isNew = this.conversationId !== conversationId;
    showUnderstanding(running.turn.question, understoodAs);
    running.view.answerId = answerId;
    running.view.wait("searching");
    this.conversationId = conversationId;
    this.#lastId = answerId; // an answer's message bears its answer's id
    if (isNew) this.#hooks.began(conversationId);
    if (running.stopping) this.#cancel(running);
  }

  #found(items, { view }) {
    view.sources(items);
    view.wait("reading");
  }

  #grew(text, { view }) {
    view.append(text);
    view.wait("checking");
    this.#announcer.follow(view.text);
  }

  #noticed(notice, running) {
    const { view, turn, held } = running;
    if (notice.code === "thinking") return view.wait("thinking"); // progress, gone with the first text
    if (notice.code === "history_unavailable") this.#lastId = turn.parentId; // nothing can be asked behind this answer
    if (notice.code === "degraded") held.push(notice); // how the answer ends tells whether it is needed
    else this.#showNotices(noticesFor([notice]), view);
  }

  #showNotices(notices, view) {
    for (const notice of notices) {
      view.notice(notice);
      this.#announcer.announce(`${t("notice")}: ${notice.text}`);
    }
  }

  #done({ finish_reason: reason, grounded }, running) {
    running.ended = true;
    this.#showNotices(noticesFor(running.held, reason), running.view);
    this.#announcer.follow(running.view.text, { ended: true });
    running.view.finish(reason, { grounded });
    const { answerId } = running.view;
    if (answerId && answerId === this.#lastId) this.#offer(running.view, running.turn.text, [...running.turn.siblings, answerId]);
    const count = running.view.citedCount;
    const said = isCutShort(reason) ? `end_${reason}` : count ? "done_read_cited" : "done_read";
    this.#announcer.announce(t(said, { count }));
  }

  #failed(error, running) {
    running.ended = true;
    const { view, turn } = running;
    if (turn.resume && error instanceof Problem && error.status === 404) {
      turn.missing(); // its log is gone, and the history never got it
      return;
    }
    if (error instanceof TokenNeeded) {
      const unheard = !turn.again && !turn.resume && !view.answerId;
      if (unheard) turn.question.remove();
      view.element.remove();
      this.#hooks.tokenNeeded(unheard ? turn.text : "");
      return;
    }
    const box = troubleView(error, {
      retry: () => this.#again(running, error),
      startOver: () => this.#hooks.startOver(turn.text),
    });
    view.fail(box);
    this.#announcer.announce(t(troubleOf(error).key));
  }

  /** Ask the same again: a refusal does not bind the key and a lost request may be joined; beside a failed answer comes another. */
  #again({ view, turn }, error) {
    if (this.#running) return;
    view.element.remove();
    if (error?.type !== "error") return void this.#answer(turn);
    const kept = view.answerId === this.#lastId;
    const beside = kept ? { again: view.answerId, siblings: [...turn.siblings, view.answerId] } : {};
    this.#answer({ ...turn, ...beside, conversationId: this.conversationId, resume: null, key: randomKey() });
  }

  async #cancel(running) {
    try {
      await this.#api.cancel(running.view.answerId);
    } catch {
      this.#giveUp(running);
    }
  }

  /** Wait no longer for an answer that was stopped: unread, it ends by itself on the server. */
  #giveUp(running) {
    if (this.#running !== running || running.ended) return;
    running.abort.abort();
    this.#done({ finish_reason: "cancelled" }, running);
    this.#rest();
  }
}

function queueText({ position, estimated_wait_ms: milliseconds }) {
  const wait = { seconds: milliseconds / 1000 };
  return position > 1 ? ["queued", { ahead: position - 1, wait }] : ["queued_next", { wait }];
}

/** Return a fresh Idempotency-Key (randomUUID exists only on secure origins). */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
