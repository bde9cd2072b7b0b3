/** Addresses of the views. Names may be anything. */

export const toChannel = (name) => `#/channel/${encodeURIComponent(name.toWellFormed?.() ?? name)}`;
export const toClient = (id) => `#/connection/${encodeURIComponent(id)}`;
export const toUser = (user) => `#/connections/${encodeURIComponent(user.toWellFormed?.() ?? user)}`;
