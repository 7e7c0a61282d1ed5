// What somebody may do with a version, before the server is asked. Pure; the server decides.

const APPROVERS = ["approver", "admin"];

/** Return `{allowed, key, values}` of the approve button: it always says why it cannot be pressed. */
export function approval(me, version, { screened, blocked = false, unseen = 0 }) {
  if (samePerson(me.sub, version.uploaded_by)) return { allowed: false, key: "approve_own", values: {} };
  if (!isApprover(me)) return { allowed: false, key: "approve_role", values: {} };
  if (!screened) return { allowed: false, key: "approve_checking", values: {} };
  if (blocked) return { allowed: false, key: "approve_blocked", values: {} };
  return { allowed: true, key: unseen ? "approve_unseen" : "approve", values: { uploader: version.uploaded_by, count: unseen } };
}

export const isApprover = (me) => me.roles.some((role) => APPROVERS.includes(role));

/** Return what the card of a version offers, as names of its buttons. */
export function offered(me, version) {
  const { state } = version;
  const inForce = state === "approved" || state === "active";
  const open = inForce || state === "indexed";
  const mine = samePerson(me.sub, version.uploaded_by);
  const offers = [];
  if (open || state === "expired") offers.push("review");
  if (open) offers.push("title");
  if (open || state === "received") if (!inForce || (isApprover(me) && !mine)) offers.push("dates");
  if (inForce && isApprover(me)) offers.push("expire");
  if (!inForce && version.visible_from !== null && isApprover(me) && !mine) offers.push("roll_back");
  return offers;
}

const samePerson = (one, other) => one.trim().toLowerCase() === other.trim().toLowerCase();
