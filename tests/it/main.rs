//! What holds for the project as a whole: through the binary, as a user would.

mod architecture;
mod audit;
mod clients;
mod cohorts;
mod deidentify;
mod disk;
mod endpoints;
mod faults;
mod federation;
mod real_data;
mod records;
mod runs;
mod serving;
mod sources;
mod standards;
mod synovia;
mod tables;
