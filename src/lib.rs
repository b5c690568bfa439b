//! widentity

pub mod model;

pub mod plan;

pub mod azure;
pub mod kubernetes;
pub mod observe;
pub mod prove;

pub mod execute;

pub mod ops;

pub mod render;

pub mod cli;

pub mod sandbox;
