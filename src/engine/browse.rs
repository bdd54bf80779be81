//! Looking into snapshots: listing folders, reading files.
