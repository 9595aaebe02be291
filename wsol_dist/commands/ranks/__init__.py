"""Which samples every rank of a job reads; the first step of the job scripts: wsol ranks prepare|tell|check."""
