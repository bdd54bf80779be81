//! Tests of restoring.
