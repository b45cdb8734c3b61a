"""Rules as data: the charter is read strictly, adopted with its digest, and never edited afterwards."""
