// The actions that the page offers a person for a version. Pure; the server checks them again.

const APPROVERS = ["approver", "admin"];

/** Return `{allowed, key, values}` for the approve button; its text says why it is disabled. */
export function approval(me, version, { screened, blocked = false, unseen = 0 }) {
  if (samePerson(me.sub, version.uploaded_by)) return { allowed: false, key: "approve_own", values: {} };
  if (!isApprover(me)) return { allowed: false, key: "approve_role", values: {} };
  if (!screened) return { allowed: false, key: "approve_checking", values: {} };
  if (blocked) return { allowed: false, key: "approve_blocked", values: {} };
  return { allowed: true, key: unseen ? "approve_unseen" : "approve", values: { uploader: version.uploaded_by, count: unseen } };
}

export const isApprover = (me) => me.roles.some((role) => APPROVERS.includes(role));

/** Return the actions for a version, by the names of their buttons. */
export function actionsFor(me, version) {
  const { state } = version;
  const isApproved = state === "approved" || state === "active";
  const isOpen = isApproved || state === "indexed";
  const maySecond = isApprover(me) && !samePerson(me.sub, version.uploaded_by);
  const mayDate = isApproved ? maySecond : state === "indexed" || state === "received";
  const actions = [];
  if (isOpen || state === "expired") actions.push("review");
  if (isOpen) actions.push("title");
  if (mayDate) actions.push("dates");
  if (isApproved && isApprover(me)) actions.push("expire");
  if (!isApproved && version.visible_from !== null && maySecond) actions.push("roll_back");
  return actions;
}

const samePerson = (one, other) => one.trim().toLowerCase() === other.trim().toLowerCase();
