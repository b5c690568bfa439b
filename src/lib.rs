//! widentity

pub mod sandbox;
