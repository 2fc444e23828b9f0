"""Why a user's list is as it is: what became of each event, how slices were merged, what each candidate scored."""
