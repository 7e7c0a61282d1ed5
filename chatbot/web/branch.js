// A conversation is a tree: a question asked again stands beside the first one. Pure.

/** Return the messages that lead to the newest one, oldest first. */
export function newestBranch(messages) {
  const byId = new Map(messages.map((message) => [message.id, message]));
  const branch = [];
  for (let message = messages.at(-1); message; message = byId.get(message.parent_id)) {
    branch.unshift(message);
    byId.delete(message.id); // a circle would never end
  }
  return branch;
}
