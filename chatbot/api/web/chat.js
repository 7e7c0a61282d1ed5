// The shown conversation: asks questions, follows and stops answers, and shows earlier conversations.

import { Problem, TokenNeeded } from "./api.js";
import { followAnswer } from "./answer_stream.js";
import { actionsView, siblingSwitchView } from "./answer_actions.js";
import { AnswerView, isCutShort, noticesFor, questionView, showUnderstanding } from "./answer_view.js";
import { branchThrough, branchTo, newestBranch, openQuestion, siblingsOf } from "./branch.js";
import { t } from "./i18n.js";
import { troubleOf } from "./trouble.js";
import { troubleView } from "./trouble_box.js";

const STOP_MS = 5_000; // the deadline of the server's confirmation that an answer is stopped

export class Chat {
  #api;
  #messages;
  #answerMode;
  #announcer;
  #openPassage;
  #hooks;
  #running = null;
  #lastId = null;

  conversationId = null;

  /** `hooks` are `busy(boolean)`, `began(conversationId)`, `ended()`, `asked()`, `startOver(text)`, `tokenNeeded(text)`. */
  constructor({ api, messages, answerMode, announcer, openPassage, hooks }) {
    this.#api = api;
    this.#messages = messages;
    this.#answerMode = answerMode;
    this.#announcer = announcer;
    this.#openPassage = openPassage;
    this.#hooks = hooks;
  }

  /** Ask `text` in this conversation and show the answer as it comes. */
  async ask(text) {
    const question = questionView(text);
    this.#messages.append(question);
    this.#hooks.asked();
    const { conversationId } = this; // as of now: a retry must send the same body, also after the conversation has an id
    const request = { conversationId, parentId: this.#lastId, answerMode: this.#answerMode(), key: randomKey() };
    await this.#answer({ text, question, siblings: [], regenerates: null, ...request });
  }

  /** Answer the question before `view` again, in its place. The messages after it belong to the other branch. */
  async #regenerate({ view, text, siblings }) {
    if (this.#running) return;
    const question = view.element.previousElementSibling;
    while (question.nextElementSibling) question.nextElementSibling.remove();
    this.#hooks.asked();
    await this.#answer({ text, question, parentId: null, regenerates: view.answerId, siblings, key: randomKey() });
  }

  /** Stop the running answer; the shown text stays. */
  async stop() {
    const running = this.#running;
    if (!running || running.stopping) return;
    running.stopping = true;
    running.view.showStatus("stopping");
    setTimeout(() => this.#giveUp(running), STOP_MS);
    if (running.view.answerId) await this.#cancel(running); // otherwise `#accepted` cancels it
  }

  /** Show an empty conversation. A running answer continues on the server, and ends there if nobody reads it. */
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
   * Show an earlier conversation: its newest branch, or the newest branch with the message `through`. Without `through`
   * and if `mayRun`, an answer that may still run (begun before a reload, or on another device) is followed.
   */
  show(conversation, { through = null, mayRun = true } = {}) {
    const { id, messages } = conversation;
    this.clear();
    this.conversationId = id;
    const open = mayRun && !through ? openQuestion(messages) : null;
    if (open) return this.#follow(conversation, open);
    const branch = through ? branchThrough(messages, through) : newestBranch(messages);
    this.#append(messages, branch);
    if (branch.at(-1)?.role === "user") this.#messages.append(this.#missingAnswer());
  }

  #follow(conversation, { id, text, parent_id: parentId, answered_by: resumes }) {
    const { messages } = conversation;
    this.#append(messages, branchTo(messages, id));
    const siblings = siblingsOf(messages, { role: "assistant", parent_id: id });
    const onMissing = () => this.show(conversation, { mayRun: false });
    this.#answer({ text, question: this.#messages.lastElementChild, parentId, siblings, resumes, onMissing });
  }

  #append(messages, branch) {
    this.#lastId = branch.findLast(({ role }) => role === "assistant")?.id ?? null;
    branch.forEach((message, n) => {
      const siblings = siblingsOf(messages, message);
      const questionText = branch[n - 1]?.text ?? "";
      const isQuestion = message.role === "user";
      this.#messages.append(isQuestion ? this.#pastQuestion(message, siblings) : this.#pastAnswer(message, questionText, siblings));
    });
  }

  #pastQuestion({ id, text, at, standalone }, siblings) {
    const question = questionView(text, at, this.#siblingSwitch(siblings, id));
    showUnderstanding(question, standalone);
    return question;
  }

  #pastAnswer(message, questionText, siblings) {
    const { answer_id: answerId, text, sources = [], citations = [], related = [], notices = [], grounded, feedback } = message;
    const view = new AnswerView(this.#openPassage);
    view.answerId = answerId;
    noticesFor(notices, message.finish_reason).forEach((notice) => view.addNotice(notice));
    view.setSources(sources);
    view.append(text);
    citations.forEach((citation) => view.addCitation(citation));
    view.setRelated(related);
    view.finish(message.finish_reason ?? "stop", { grounded });
    this.#showActions(view, questionText, siblings, feedback);
    return view.element;
  }

  /** Show the buttons of an ended answer to the question `text`, and suggested questions. */
  #showActions(view, text, siblings, feedback = null) {
    const regenerate = () => this.#regenerate({ view, text, siblings });
    const rate = (rating) => this.#rate(view.answerId, rating);
    const copy = navigator.clipboard ? () => this.#copy(view) : null; // only on secure origins
    const siblingSwitch = this.#siblingSwitch(siblings, view.answerId);
    view.showActions(actionsView({ feedback, regenerate, rate, copy, siblingSwitch }));
    view.suggestFollowUps((question) => this.#running || this.ask(question));
  }

  #siblingSwitch(siblings, id) {
    return siblingSwitchView(siblings, id, (siblingId, step) => this.#showSibling(siblingId, step));
  }

  /** Show the branch of the message `id`, and keep the focus on the pressed switch `step`. */
  async #showSibling(id, step) {
    if (this.#running) return;
    const { conversationId } = this;
    try {
      const conversation = await this.#api.conversation(conversationId);
      if (this.#running || this.conversationId !== conversationId) return; // the customer has opened another one since
      this.show(conversation, { through: id });
    } catch (error) {
      this.#announcer.announce(t(troubleOf(error).key));
      return;
    }
    const buttons = [...this.#messages.querySelectorAll(`[data-step="${step}"]`)];
    const pressed = buttons.find((button) => button.closest(".turns").dataset.shown === id) ?? buttons.at(-1);
    const target = pressed?.disabled ? pressed.parentElement.querySelector("button:enabled") : pressed;
    target?.focus();
  }

  /** Copy an answer to the clipboard; return whether it succeeded. */
  async #copy(view) {
    const isCopied = await navigator.clipboard.writeText(view.plainText).then(() => true, () => false);
    this.#announcer.announce(t(isCopied ? "copied" : "copy_failed"));
    return isCopied;
  }

  /** Store the customer's rating of an answer; return whether it succeeded. */
  async #rate(answerId, rating) {
    try {
      await this.#api.rate(answerId, rating);
    } catch {
      this.#announcer.announce(t("rate_failed"));
      return false;
    }
    this.#announcer.announce(t("rated"));
    return true;
  }

  #missingAnswer() {
    const view = new AnswerView(this.#openPassage);
    view.finish("missing");
    return view.element;
  }

  /**
   * Show the answer of `turn` while it runs. The turn has the `text` and the element of its `question`, the ids of the
   * answer's `siblings`, and the request: a new one with an Idempotency-Key `key`, one that `regenerates` an answer, or
   * one that `resumes` an answer; `onMissing` is called if that answer no longer exists.
   */
  async #answer(turn) {
    const view = new AnswerView(this.#openPassage);
    const isButtonGone = turn.regenerates || this.#messages.contains(document.activeElement);
    turn.question.after(view.element);
    if (isButtonGone) view.focus(); // the pressed button had the focus
    const running = { view, turn, abort: new AbortController(), stopping: false, ended: false, heldNotices: [] };
    this.#running = running;
    this.#hooks.busy(true);
    this.#announcer.begin();
    view.showStatus("searching");
    this.#announcer.announce(t("searching"));
    try {
      for await (const event of this.#events(running)) if (this.#running === running) this.#handle(event, running);
      if (!running.ended) this.#failed({ type: "error", code: "log_lost" }, running);
    } catch (error) {
      if (this.#running === running) this.#failed(error, running);
    }
    if (this.#running === running) this.#becomeIdle(); // otherwise the customer has left the conversation, or given up
  }

  #becomeIdle() {
    this.#running = null;
    this.#hooks.busy(false);
    this.#hooks.ended();
  }

  #events({ turn, view, abort }) {
    const question = { message: turn.text };
    if (turn.conversationId) question.conversation_id = turn.conversationId;
    if (turn.parentId) question.parent_id = turn.parentId;
    if (turn.answerMode) question.answer = turn.answerMode;
    return followAnswer({
      ask: () => {
        if (turn.resumes) return this.#api.resume(turn.resumes, "", abort.signal);
        if (turn.regenerates) return this.#api.regenerate(turn.regenerates, turn.key, abort.signal);
        return this.#api.ask(question, turn.key, abort.signal);
      },
      resume: (answerId, lastId) => this.#api.resume(answerId, lastId, abort.signal),
    });
  }

  #handle(event, running) {
    const { view } = running;
    const handlers = {
      accepted: () => this.#accepted(event, running),
      queued: () => view.showStatus(...queueStatus(event)),
      sources: () => this.#showSources(event.items, running),
      token: () => this.#appendText(event.text, running),
      citation: () => view.addCitation(event),
      related: () => view.setRelated(event.items),
      notice: () => this.#handleNotice(event, running),
      done: () => this.#done(event, running),
      error: () => this.#failed(event, running),
      reconnecting: () => view.showStatus("reconnecting", { attempt: event.attempt }),
    };
    handlers[event.type]?.(); // an event of a later release is ignored
    const isReconnecting = event.type === "reconnecting";
    const isReconnected = running.reconnecting && !isReconnecting;
    if (running.stopping && !running.ended) view.showStatus("stopping");
    else if (isReconnected && !running.ended) view.showStatus(view.text ? "checking" : "reading");
    running.reconnecting = isReconnecting;
  }

  #accepted({ answer_id: answerId, conversation_id: conversationId, understood_as: understoodAs }, running) {
    const isNew = this.conversationId !== conversationId;
    showUnderstanding(running.turn.question, understoodAs);
    running.view.answerId = answerId;
    running.view.showStatus("searching");
    this.conversationId = conversationId;
    this.#lastId = answerId; // which is also the id of the answer's message
    if (isNew) this.#hooks.began(conversationId);
    if (running.stopping) this.#cancel(running);
  }

  #showSources(items, { view }) {
    view.setSources(items);
    view.showStatus("reading");
  }

  #appendText(text, { view }) {
    view.append(text);
    view.showStatus("checking");
    this.#announcer.follow(view.text);
  }

  #handleNotice(notice, running) {
    const { view, turn, heldNotices } = running;
    if (notice.code === "thinking") return view.showStatus("thinking"); // until the first text
    if (notice.code === "history_unavailable") this.#lastId = turn.parentId; // this answer is not stored: no parent
    if (notice.code === "degraded") heldNotices.push(notice); // the end of the answer decides whether to show it
    else this.#showNotices(noticesFor([notice]), view);
  }

  #showNotices(notices, view) {
    for (const notice of notices) {
      view.addNotice(notice);
      this.#announcer.announce(`${t("notice")}: ${notice.text}`);
    }
  }

  #done({ finish_reason: reason, grounded }, running) {
    running.ended = true;
    this.#showNotices(noticesFor(running.heldNotices, reason), running.view);
    this.#announcer.follow(running.view.text, { ended: true });
    running.view.finish(reason, { grounded });
    const { answerId } = running.view;
    const isStored = answerId && answerId === this.#lastId;
    if (isStored) this.#showActions(running.view, running.turn.text, [...running.turn.siblings, answerId]);
    const count = running.view.citedCount;
    const ending = count ? "done_read_cited" : "done_read";
    this.#announcer.announce(t(isCutShort(reason) ? `end_${reason}` : ending, { count }));
  }

  #failed(error, running) {
    running.ended = true;
    const { view, turn } = running;
    if (turn.resumes && error instanceof Problem && error.status === 404) {
      turn.onMissing(); // its log has expired, and it was never stored
      return;
    }
    if (error instanceof TokenNeeded) {
      const isUnsent = !turn.regenerates && !turn.resumes && !view.answerId;
      if (isUnsent) turn.question.remove();
      view.element.remove();
      this.#hooks.tokenNeeded(isUnsent ? turn.text : "");
      return;
    }
    const box = troubleView(error, {
      retry: () => this.#retry(running, error),
      startOver: () => this.#hooks.startOver(turn.text),
    });
    view.fail(box);
    this.#announcer.announce(t(troubleOf(error).key));
  }

  /**
   * Ask again. A refused or lost request is repeated with its key, which joins its answer if there is one. An answer that
   * ended in an error is regenerated if it is stored, otherwise its question is asked again with a new key.
   */
  #retry({ view, turn }, error) {
    if (this.#running) return;
    view.element.remove();
    const hasEnded = error?.type === "error";
    if (!hasEnded) return void this.#answer(turn);
    const isStored = view.answerId === this.#lastId;
    const regeneration = isStored ? { regenerates: view.answerId, siblings: [...turn.siblings, view.answerId] } : {};
    this.#answer({ ...turn, ...regeneration, conversationId: this.conversationId, resumes: null, key: randomKey() });
  }

  async #cancel(running) {
    try {
      await this.#api.cancel(running.view.answerId);
    } catch {
      this.#giveUp(running);
    }
  }

  /** End a stopped answer without the server's confirmation; the server ends it, because nobody reads it. */
  #giveUp(running) {
    if (this.#running !== running || running.ended) return;
    running.abort.abort();
    this.#done({ finish_reason: "cancelled" }, running);
    this.#becomeIdle();
  }
}

/** Return the key and the values of the status of a waiting answer. */
function queueStatus({ position, estimated_wait_ms: milliseconds }) {
  const wait = { seconds: milliseconds / 1000 };
  return position > 1 ? ["queued", { ahead: position - 1, wait }] : ["queued_next", { wait }];
}

/** Return a new Idempotency-Key (randomUUID exists only on secure origins). */
function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
