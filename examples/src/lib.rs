//! Runnable examples of Tidelog; see the files beside this folder.
