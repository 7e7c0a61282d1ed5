// Branches of a conversation, which is a tree: a message may have several answers or follow-up questions. Pure.

/** Return the messages that lead to the message `id`, oldest first. */
export function branchTo(messages, id) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const branch = [];
  for (let message = byId.get(id); message; message = byId.get(message.parent_id)) {
    branch.unshift(message);
    byId.delete(message.id); // a cycle would not end
  }
  return branch;
}

/** Return the messages that lead to the newest one, oldest first. */
export const newestBranch = (messages) => branchTo(messages, messages.at(-1)?.id);

/** Return the newest branch with the message `id`, or the newest of all branches if none has it. */
export function branchThrough(messages, id) {
  for (let n = messages.length - 1; n >= 0; n -= 1) {
    const branch = branchTo(messages, messages[n].id);
    if (branch.some((message) => message.id === id)) return branch;
  }
  return newestBranch(messages);
}

/** Return the ids of a message and its siblings (same parent, same role), oldest first. */
export function siblingsOf(messages, message) {
  const siblings = messages.filter(({ parent_id: parent, role }) => parent === message.parent_id && role === message.role);
  return siblings.map(({ id }) => id);
}

/** Return the newest question whose answer is not among the messages, because it may still run; null if there is none. */
export function openQuestion(messages) {
  const ids = new Set(messages.map(({ id }) => id));
  return messages.findLast(({ answered_by: answerId }) => answerId && !ids.has(answerId)) ?? null;
}
