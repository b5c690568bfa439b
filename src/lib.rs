//! widentity

pub mod config;

pub mod model;

pub mod plan;

pub mod execute;

pub mod sandbox;
