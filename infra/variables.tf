# Input variables. Only `project` is required; terraform.tfvars.example shows them all.

variable "project" {
  description = "The project's id."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project: must be a project's id, 6 to 30 lowercase letters, digits and hyphens, such as my-project-123; not its name or number."
  }
}

variable "region" {
  description = "Where the bucket, the images and the machines are: one place, so that nothing is paid for traffic."
  type        = string
  default     = "us-central1"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region: must be a region such as us-central1; a zone (us-central1-a) or a continent (US) is none."
  }
}

variable "name" {
  description = "Prefix of all names, and the label `app`."
  type        = string
  default     = "yolo-train"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,18}[a-z0-9]$", var.name))
    error_message = "name: must be 4 to 20 lowercase letters, digits and hyphens, the first a letter: service accounts allow 30 with what is added."
  }
}

variable "bucket" {
  description = "The bucket's name; PROJECT-NAME if left out."
  type        = string
  default     = null

  validation {
    condition     = var.bucket == null || can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket: must be a bucket's name, 3 to 63 lowercase letters, digits, hyphens and underscores, without gs://."
  }
}

variable "archive" {
  description = "Name of a second bucket, in which what trains can only create: finished runs are copied there; none if left out."
  type        = string
  default     = null

  validation {
    condition     = var.archive == null || can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.archive))
    error_message = "archive: must be a bucket's name, 3 to 63 lowercase letters, digits, hyphens and underscores, without gs://."
  }
}

variable "submitters" {
  description = "Who may act as the submitter, as user:, group: or serviceAccount: with an address."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for member in var.submitters : can(regex("^(user|group|serviceAccount):[^@\\s]+@[^@\\s]+$", member))])
    error_message = "submitters: each must be user:NAME@DOMAIN, group:NAME@DOMAIN or serviceAccount:NAME@DOMAIN; everybody (allUsers) is refused."
  }
}

variable "wandb_key_version" {
  description = "0: no tracking by Weights & Biases. 1: store the key; raise it to store another."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.wandb_key_version >= 0 && floor(var.wandb_key_version) == var.wandb_key_version
    error_message = "wandb_key_version: must be a whole number of at least 0."
  }
}

variable "wandb_api_key" {
  description = "The key itself, given as TF_VAR_wandb_api_key when wandb_key_version was raised; it is never kept in the state."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = var.wandb_api_key == null || can(regex("^[A-Za-z0-9_-]{40,}$", var.wandb_api_key))
    error_message = "wandb_api_key: must be a key of Weights & Biases, at least 40 letters, digits, hyphens and underscores."
  }
}

variable "notify_version" {
  description = "0: make supervise-up tells no webhook. 1: store its address; raise it to store another."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.notify_version >= 0 && floor(var.notify_version) == var.notify_version
    error_message = "notify_version: must be a whole number of at least 0."
  }
}

variable "notify_url" {
  description = "The address itself, given as TF_VAR_notify_url when notify_version was raised; it is never kept in the state."
  type        = string
  default     = null
  ephemeral   = true
  sensitive   = true

  validation {
    condition     = var.notify_url == null || can(regex("^https?://[^\\s@]+$", var.notify_url))
    error_message = "notify_url: must be an address https://... without user and password."
  }
}

variable "longest_run_days" {
  description = "How long a run may take, preemptions and all; an image without a tag is kept that long."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.longest_run_days >= 14 && var.longest_run_days <= 365
    error_message = "longest_run_days: must be 14 to 365; one Batch job alone may take 14."
  }
}

variable "vm_machine_type" {
  description = "The machine of the VM road, with one GPU that comes with its type."
  type        = string
  default     = "g2-standard-8"
  nullable    = false

  validation {
    condition     = can(regex("^(g2-standard-(4|8|12|16|32)|a2-(high|ultra)gpu-1g|a3-highgpu-1g)$", var.vm_machine_type))
    error_message = "vm_machine_type: must be g2-standard-4, -8, -12, -16 or -32, a2-highgpu-1g, a2-ultragpu-1g or a3-highgpu-1g: a training uses one GPU."
  }
}

variable "vm_zones" {
  description = "The zones that have such machines; every zone of the region if left out."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for zone in var.vm_zones : can(regex("^${var.region}-[a-z]$", zone))])
    error_message = "vm_zones: each must be a zone of the region, such as us-central1-a."
  }
}

variable "vm_disk_gb" {
  description = "The boot disk: the system, the image unpacked, the data and the files on their way."
  type        = number
  default     = 100
  nullable    = false

  validation {
    condition     = var.vm_disk_gb >= 50 && var.vm_disk_gb <= 2000
    error_message = "vm_disk_gb: must be 50 to 2000; the unpacked image needs most of the first 50."
  }
}

variable "vm_disk_type" {
  description = "The type of the boot disk; pd-ssd has 0.48 MiB/s for each GiB instead of 0.28."
  type        = string
  default     = "pd-balanced"
  nullable    = false

  validation {
    condition     = contains(["pd-balanced", "pd-ssd"], var.vm_disk_type)
    error_message = "vm_disk_type: must be pd-balanced or pd-ssd."
  }
}

variable "boot_image" {
  description = "The image with container and driver inside that Batch's machines and the VM boot, made and written by `make boot-image`."
  type        = string
  default     = null

  validation {
    condition     = var.boot_image == null || can(regex("^projects/[a-z][a-z0-9-]+/global/images/[a-z][a-z0-9-]*$", var.boot_image))
    error_message = "boot_image: must be an image as make boot-image writes it, projects/PROJECT/global/images/NAME."
  }
}

variable "vm_source_image" {
  description = "The operating system without a boot_image: a family of Container-Optimized OS with long-term support, which has drivers for its kernel."
  type        = string
  default     = "projects/cos-cloud/global/images/family/cos-125-lts"
  nullable    = false

  validation {
    condition     = can(regex("^projects/cos-cloud/global/images/(family/)?cos-[a-z0-9-]+$", var.vm_source_image))
    error_message = "vm_source_image: must be an image of Container-Optimized OS, such as projects/cos-cloud/global/images/family/cos-125-lts; the boot files need its cos-extensions."
  }
}

variable "alert_email" {
  description = "E-mail address for alerts; without it incidents show in the console only."
  type        = string
  default     = null

  validation {
    condition     = var.alert_email == null || can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", var.alert_email))
    error_message = "alert_email: must be an e-mail address."
  }
}

variable "no_progress_minutes" {
  description = "How long a machine may run without committing a checkpoint before an alert; longer than pulling the data and the first commit take."
  type        = number
  default     = 60
  nullable    = false

  validation {
    condition     = var.no_progress_minutes >= 15 && var.no_progress_minutes <= 1440
    error_message = "no_progress_minutes: must be 15 to 1440; a machine needs minutes to start."
  }
}

variable "preemptions_per_hour" {
  description = "More preemptions within an hour than this are a storm."
  type        = number
  default     = 4
  nullable    = false

  validation {
    condition     = var.preemptions_per_hour >= 1 && var.preemptions_per_hour <= 60
    error_message = "preemptions_per_hour: must be 1 to 60."
  }
}

variable "budget" {
  description = "A monthly budget that alerts and never stops a machine: the billing account's id and the amount in its currency."
  type = object({
    billing_account = string
    amount          = number
  })
  default = null

  validation {
    condition     = var.budget == null || can(regex("^[0-9A-F]{6}(-[0-9A-F]{6}){2}$", var.budget.billing_account))
    error_message = "budget: billing_account must be an id such as 012345-6789AB-CDEF01."
  }

  validation {
    condition     = var.budget == null || try(var.budget.amount >= 1 && floor(var.budget.amount) == var.budget.amount, false)
    error_message = "budget: amount must be a whole number of at least 1."
  }
}
