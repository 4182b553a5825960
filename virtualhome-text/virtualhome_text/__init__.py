"""VirtualHome as text: two household tasks, told in sentences. Importing it registers its tasks."""
