// Package isolation finds out whether Enhanced Container Isolation is on.
//
// Host networking gives containers the ports of the host; Enhanced Container
// Isolation (ECI), a feature of Docker Desktop, keeps containers away from the
// host. They exclude each other, so with ECI on, host networking is refused.
//
// Theory of operation. Evidence comes from three sides, and Judge joins it:
//
//	Locations.Read --> Host      Docker Desktop's files, and WSL's
//	an agent's report --> Guest  what runs in the guest
//	our settings --> Setting     somebody said so
//
// Each piece of evidence becomes a Finding that says on, off or unknown, where
// it was seen, who locked it and what would resolve it. One finding that says on
// is enough: the verdict is on. Else one that says unknown makes it unknown. It is off only
// when somebody said off and nobody said anything else. Unknown is shown and
// does not refuse: nearly every machine without ECI is in that state.
//
// Why absence is unknown. Docker Desktop writes into settings-store.json only
// what differs from the default, and the default is not ours to know: an
// administrator can set it in admin-settings.json, or for a whole organization
// in Docker's Admin Console, which leaves no file with a documented name here.
// The same goes for a file that we may not read or that is half written. Only a
// value that is written down counts.
//
// Which file counts. What admin-settings.json locks is so, whatever else is
// written. What it does not lock is a default, and counts where the user's files
// do not say. In these, settings-store.json (Docker Desktop 4.35 and later)
// outranks settings.json (before that), which an upgrade may leave behind. A
// settings.json that says on where the store is silent is taken at its word:
// after a downgrade it is the file in use.
//
// In the guest, sysbox is the mark of ECI, as it is the runtime that ECI uses:
// as the engine's default runtime, or as running daemons. A user namespace
// around the agent is one too. A single container with that runtime only warns,
// because anybody who has sysbox can start one. An engine that is to run the agent
// itself may tell that it gives containers a user namespace, or forbids those
// that share the guest's network: the same, as far as host networking goes.
//
// Warnings never refuse. They name other forwarders that would open the same
// ports as we: Docker Desktop's own host networking, and WSL's.
//
// Nothing here is remembered between calls. Whoever wants to follow changes
// watches Locations.Paths and reads again.
package isolation
