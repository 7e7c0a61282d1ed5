// A conversation is a tree: another answer stands beside the first, a question asked elsewhere beside its sibling. Pure.

/** Return the messages that lead to the message `id`, oldest first. */
export function branchTo(messages, id) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const branch = [];
  for (let message = byId.get(id); message; message = byId.get(message.parent_id)) {
    branch.unshift(message);
    byId.delete(message.id); // a circle would never end
  }
  return branch;
}

/** Return the messages that lead to the newest one, oldest first. */
export const newestBranch = (messages) => branchTo(messages, messages.at(-1)?.id);

/** Return the newest branch that holds the message `id`, or the newest of all where none does. */
export function branchThrough(messages, id) {
  for (let n = messages.length - 1; n >= 0; n -= 1) {
    const branch = branchTo(messages, messages[n].id);
    if (branch.some((message) => message.id === id)) return branch;
  }
  return newestBranch(messages);
}

/** Return the ids of what stands beside `message`, itself among them, oldest first. */
export function siblingsOf(messages, message) {
  const beside = messages.filter(({ parent_id: parent, role }) => parent === message.parent_id && role === message.role);
  return beside.map(({ id }) => id);
}

/** Return the newest question of which the answer that it began is not among the messages: that may still run. */
export function openQuestion(messages) {
  const known = new Set(messages.map(({ id }) => id));
  return messages.findLast(({ answered_by: begun }) => begun && !known.has(begun)) ?? null;
}
