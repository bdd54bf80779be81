//! What takes the space (SPEC §5, §6): of the vault as a whole, of each source, and what each snapshot alone holds. Every
//! distinct tree is read once.
//!
//! For each tree and each chunk it is enough to know in which of three ways it is used: by one snapshot, by several of one
//! source, or by several sources. So memory is bounded by the number of trees and chunks, whatever the number of snapshots.
