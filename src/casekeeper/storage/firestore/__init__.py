"""The store on Firestore, shared by several processes."""
