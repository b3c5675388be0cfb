//! The wire: MS-TDS 7.4.
